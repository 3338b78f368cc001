"""A client for a judging language model behind an OpenAI-compatible endpoint.

A judge must not stop a run: requests are repeated (see `core_rl.servers.endpoint`), a batch has a
deadline, and a missing or unreadable judgement is None and counted.  Readable replies are kept on
disk, so that an interrupted run does not pay for them twice.  The key is read from the environment
only, so that no configuration file contains it, and it is never logged.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core_rl.config import is_address
from core_rl.servers.endpoint import Client, Endpoint, EndpointError, Response
from core_rl.store import Store, StoreError

log = logging.getLogger(__name__)

Parse = Callable[[str], float | None]
# The table of earlier versions, whose replies stay valid.
_EARLIER = {"earlier": "replies", "select": "key, json_quote(reply)"}


@dataclass
class JudgeCounts:
    """Numbers of prompts of a run.

    Attributes:
        asked: prompts sent, retries not counted.
        cached: replies read from disk.
        retried: repeated requests.
        failed: no reply after all attempts or at the deadline.
        unparsable: the reply has no readable judgement.
    """

    asked: int = 0
    cached: int = 0
    retried: int = 0
    failed: int = 0
    unparsable: int = 0


@dataclass
class Judge:
    """A model that judges completions.

    Attributes:
        model: its name at the endpoint.
        url: base such as `https://host/v1`; null: the environment variable API at each call.
        key_env: environment variable that holds the key; unset for servers without one.
        timeout: seconds for one request.
        retries: further attempts after errors that may pass.
        backoff: seconds before the first of them, doubled for each further one, with jitter.
        concurrency: simultaneous requests of one batch.
        deadline: seconds for a whole batch; prompts without a reply by then are None.
        max_tokens: longest reply.
        cache: file that keeps replies; null keeps none.
        counts: of the prompts so far.

    Raises:
        ValueError: a setting is out of its range, or the cache is no cache.
    """

    model: str
    url: str | None = None
    key_env: str = "API_KEY"
    timeout: float = 30.0
    retries: int = 4
    backoff: float = 1.0
    concurrency: int = 8
    deadline: float = 300.0
    max_tokens: int = 512
    cache: str | Path | None = None
    counts: JudgeCounts = field(default_factory=JudgeCounts, init=False)

    def __post_init__(self) -> None:
        for name in ("timeout", "deadline", "concurrency", "max_tokens"):
            if getattr(self, name) <= 0:
                raise ValueError(f"judge {name}={getattr(self, name)}: expected above 0")
        for name in ("retries", "backoff"):
            if getattr(self, name) < 0:
                raise ValueError(f"judge {name}={getattr(self, name)}: expected 0 or more")
        self._replies = None
        if self.cache:
            self._replies = Store(Path(self.cache), "judge replies", "judge.cache", **_EARLIER)

    async def ask_many(self, prompts: Sequence[str | None], parse: Parse) -> list[float | None]:
        """Judge a batch of prompts; equal ones are asked once.

        Args:
            prompts: to ask; None gives None.
            parse: reads the judgement in a reply; None if there is none.

        Returns:
            One value a prompt, None where there is no judgement.

        Raises:
            ValueError: there is no endpoint, or its address or the key is malformed.
        """
        distinct = list(dict.fromkeys(prompt for prompt in prompts if prompt is not None))
        known = {prompt: self._recall(prompt, parse) for prompt in distinct}
        missing = [prompt for prompt, value in known.items() if value is None]
        self.counts.cached += len(distinct) - len(missing)
        if missing:
            known.update(await self._ask_missing(missing, parse))
        return [None if prompt is None else known[prompt] for prompt in prompts]

    async def _ask_missing(self, prompts: list[str], parse: Parse) -> dict[str, float | None]:
        problems: Counter[str] = Counter()

        async def judge(client: Client, prompt: str) -> float | None:
            try:
                reply = await client.ask("chat/completions", self._body(prompt), _content)
            except EndpointError as error:
                self.counts.failed += 1
                problems[error.problem] += 1
                return None
            return self._keep(prompt, reply, parse, problems)

        # The client belongs to the event loop of this call; each call may have another loop.
        async with Client(self._endpoint()) as client:
            self.counts.asked += len(prompts)
            tasks = await client.each(prompts, judge, self.deadline)
        self.counts.retried += client.repeated
        if late := sum(task.cancelled() for task in tasks):
            self.counts.failed += late
            problems["deadline"] += late
        if problems:
            log.warning("judge %s: of %d prompts %s", self.model, len(prompts), dict(problems))
        values = [None if task.cancelled() else task.result() for task in tasks]
        return dict(zip(prompts, values, strict=True))

    def _body(self, prompt: str) -> dict[str, object]:
        # Garbled completions may contain halves of characters, which cannot be sent.
        content = prompt.encode(errors="replace").decode()
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }

    def _keep(self, prompt: str, reply: str, parse: Parse, problems: Counter[str]) -> float | None:
        value = parse(reply)
        if value is None:
            self.counts.unparsable += 1
            problems["unparsable"] += 1
        elif self._replies is not None:
            try:
                self._replies.put({self._key(prompt): json.dumps(reply)})
            except StoreError as error:
                log.warning("%s", error)
        return value

    def _recall(self, prompt: str, parse: Parse) -> float | None:
        if self._replies is None:
            return None
        try:
            reply = self._replies.get(self._key(prompt))
        except StoreError as error:
            log.warning("%s", error)
            return None
        return None if reply is None else parse(json.loads(reply))

    def _key(self, prompt: str) -> str:
        return hashlib.sha256(json.dumps([self.model, prompt]).encode()).hexdigest()

    def _endpoint(self) -> Endpoint:
        url = (self.url or os.environ.get("API", "")).strip().rstrip("/")
        if not is_address(url):
            raise ValueError(
                "the judge has no endpoint: set its `url` or the environment variable API to the "
                "base of an OpenAI-compatible server, such as https://host/v1"
            )
        return Endpoint(
            name="judge.url",
            url=url.removesuffix("/chat/completions"),
            cure="is it the base of an OpenAI-compatible server?",
            key_env=self.key_env,
            concurrency=self.concurrency,
            timeout=self.timeout,
            retries=self.retries,
            backoff=self.backoff,
        )


def api_wanted(setting: bool | None = None) -> bool:
    """Whether to judge by API: the setting, or where it is null the variable USE_API_REWARD.

    Raises:
        ValueError: the variable is neither a yes nor a no.
    """
    if setting is not None:
        return setting
    value = os.environ.get("USE_API_REWARD", "").strip().casefold()
    if value in ("1", "true", "yes", "on"):
        return True
    if value in ("", "0", "false", "no", "off"):
        return False
    raise ValueError(f"environment variable USE_API_REWARD={value!r}: expected true or false")


def _content(response: Response) -> str:
    """Return the text of a reply; empty, hence unparsable, if it is malformed."""
    try:
        content = response.json()["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):  # as of 100,000 brackets
        return ""
    return content if isinstance(content, str) else ""
