"""A client for a judging language model behind an OpenAI-compatible endpoint.

A judge must never stop a run: requests are retried, a whole batch has a deadline, and what could
not be asked or understood is None and counted.  Replies that were understood are kept on disk, so a
killed run does not pay for them twice.  The key comes from the environment only, so that no
written configuration can hold it, and it is never logged.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import os
import random
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

try:
    import httpx
except ImportError as error:
    raise ImportError("a judge needs httpx: pip install 'people-focus-rl[judge]'") from error

log = logging.getLogger(__name__)
# One line a request would drown the run's own log.
logging.getLogger("httpx").setLevel(logging.WARNING)

_MAX_WAIT = 60.0  # seconds between two attempts, also when the server asks for more
_RETRIED_STATUS = frozenset({408, 409, 425, 429})

Parse = Callable[[str], float | None]


@dataclass
class JudgeCounts:
    """What became of the prompts of a run.

    Attributes:
        asked: prompts sent, retries not counted.
        cached: answered from disk.
        retried: requests made again.
        failed: without a reply after all attempts or at the deadline.
        unparsable: answered with something that could not be understood.
    """

    asked: int = 0
    cached: int = 0
    retried: int = 0
    failed: int = 0
    unparsable: int = 0


class ReplyCache:
    """Replies on disk, by key; several processes may share the file.

    Args:
        path: SQLite file, made with its folder where missing.

    Raises:
        ValueError: the file exists and is no SQLite database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(self._connect()) as connection, connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT)"
                )
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{path}: expected a cache of judge replies ({error}); delete it or name another"
            ) from error

    def get(self, key: str) -> str | None:
        """Return the reply kept under `key`; None without one or when the file is unreadable."""
        try:
            with closing(self._connect()) as connection:
                row = connection.execute(
                    "SELECT reply FROM replies WHERE key = ?", (key,)
                ).fetchone()
        except sqlite3.Error as error:
            log.warning("judge cache %s: %s", self._path, error)
            return None
        return row[0] if row else None

    def put(self, key: str, reply: str) -> None:
        """Keep a reply; a cache that cannot be written is warned of, and the run goes on."""
        try:
            # Committed at once: a kill between two replies loses none.
            with closing(self._connect()) as connection, connection:
                connection.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, reply))
        except sqlite3.Error as error:
            log.warning("judge cache %s: %s", self._path, error)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=10.0)


@dataclass
class Judge:
    """Ask a model for judgements.

    Attributes:
        model: its name at the endpoint.
        url: base such as `https://host/v1`; null: the environment variable API at each call.
        key_env: environment variable that holds the key; unset for servers without one.
        timeout: seconds for one request.
        retries: further attempts after transport errors, 408, 409, 425, 429 and 5xx.
        backoff: seconds before the first retry, doubled for each further one, with jitter.
        concurrency: requests under way at a time in one batch.
        deadline: seconds for a whole batch; prompts not answered by then are None.
        max_tokens: longest reply.
        cache: file that keeps replies; null keeps none.
        counts: what became of the prompts so far.

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
        self._replies = ReplyCache(Path(self.cache)) if self.cache else None
        # Its own generator: jitter must not move the run's random numbers.
        self._random = random.Random()

    async def ask_many(self, prompts: Sequence[str | None], parse: Parse) -> list[float | None]:
        """Judge a batch of prompts, equal ones once.

        Args:
            prompts: what to ask; None is passed through as None.
            parse: reads a judgement out of a reply, None when it cannot.

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
        endpoint, headers = self._endpoint(), self._headers()
        self.counts.asked += len(prompts)
        problems: Counter[str] = Counter()
        gate = asyncio.Semaphore(self.concurrency)
        # The client belongs to the event loop of this call; loops differ from call to call.
        async with httpx.AsyncClient(headers=headers) as client:

            async def judge(prompt: str) -> float | None:
                async with gate:
                    reply = await self._reply(client, endpoint, prompt, problems)
                return None if reply is None else self._keep(prompt, reply, parse, problems)

            tasks = {asyncio.create_task(judge(prompt)): prompt for prompt in prompts}
            done, late = await asyncio.wait(tasks, timeout=self.deadline)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if late:
            self.counts.failed += len(late)
            problems["deadline"] += len(late)
        if problems:
            log.warning("judge %s: of %d prompts %s", self.model, len(prompts), dict(problems))
        values: dict[str, float | None] = dict.fromkeys(prompts)
        values.update({tasks[task]: task.result() for task in done})
        return values

    async def _reply(
        self, client: httpx.AsyncClient, endpoint: str, prompt: str, problems: Counter[str]
    ) -> str | None:
        """Ask once and, where that may help, again; None when nothing came of it."""
        problem, wait = "", 0.0
        for attempt in range(self.retries + 1):
            if attempt:
                self.counts.retried += 1
                await asyncio.sleep(wait)
            wait = min(_MAX_WAIT, self.backoff * 2**attempt * self._random.uniform(0.5, 1.5))
            try:
                # httpx bounds each read only; a server that drips would hold us for ever.
                async with asyncio.timeout(self.timeout):
                    response = await client.post(
                        endpoint, json=self._body(prompt), timeout=self.timeout
                    )
            except (httpx.HTTPError, TimeoutError) as error:
                # The name only: the message of a malformed header quotes the key.
                problem = type(error).__name__
                continue
            if response.is_success:
                return _content(response)
            problem = f"status {response.status_code}"
            if not (response.is_server_error or response.status_code in _RETRIED_STATUS):
                break
            wait = max(wait, _seconds(response.headers.get("retry-after")))
        self.counts.failed += 1
        problems[problem] += 1
        return None

    def _body(self, prompt: str) -> dict[str, object]:
        # Garbled completions may hold halves of characters, which no request can carry.
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
            self._replies.put(self._key(prompt), reply)
        return value

    def _recall(self, prompt: str, parse: Parse) -> float | None:
        reply = self._replies.get(self._key(prompt)) if self._replies is not None else None
        return None if reply is None else parse(reply)

    def _key(self, prompt: str) -> str:
        return hashlib.sha256(json.dumps([self.model, prompt]).encode()).hexdigest()

    def _endpoint(self) -> str:
        url = (self.url or os.environ.get("API", "")).strip().rstrip("/")
        if not re.match(r"https?://[^\s/]+(?:/\S*)?$", url):
            raise ValueError(
                "the judge has no endpoint: set its `url` or the environment variable API to the "
                "base of an OpenAI-compatible server, such as https://host/v1"
            )
        return url if url.endswith("/chat/completions") else f"{url}/chat/completions"

    def _headers(self) -> dict[str, str]:
        key = os.environ.get(self.key_env, "").strip()
        if not key:
            return {}
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ValueError(
                f"environment variable {self.key_env}: expected a key of plain characters without "
                "blanks or line breaks"
            )
        return {"Authorization": f"Bearer {key}"}


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


def _content(response: httpx.Response) -> str:
    """Return the text of a reply; empty, which nothing can parse, where it is malformed."""
    try:
        content = response.json()["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        return ""
    return content if isinstance(content, str) else ""


def _seconds(retry_after: str | None) -> float:
    """Read a Retry-After header in seconds; 0 where it is absent or a date."""
    try:
        seconds = float(retry_after or 0)
    except ValueError:
        return 0.0
    return min(max(seconds, 0.0), _MAX_WAIT) if math.isfinite(seconds) else 0.0
