"""Answers from a server with an OpenAI-compatible interface, such as vLLM's.

Many requests are under way at a time; those that a server may yet answer are repeated after a
growing wait.  A request that stays without an answer is an error, never a made-up answer: wrapped
in `lever.answer_cache.CachedAnswerer`, the next run asks only for what is missing.

The probability of a given answer needs a server that scores its prompt.  A plain text is scored by
`/completions` with `echo`, whose offsets say which tokens are the answer's.  A chat, pictures
included, is scored by `/chat/completions` with `prompt_logprobs`, an extension of vLLM.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import logging
import os
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from PIL import Image

from lever.answerers import Prompted
from lever.templates import Show, Shown, Template, pictures_of

try:
    import httpx
except ImportError as error:
    raise ImportError(
        "an answerer behind a server needs httpx: pip install 'people-focus-rl[judge]'"
    ) from error

log = logging.getLogger(__name__)
# One line a request would drown the run's own log.
logging.getLogger("httpx").setLevel(logging.WARNING)

API_VERSION = 1  # raise when what is asked changes
_MAX_WAIT = 60.0  # seconds between two attempts
_RETRIED = frozenset({408, 409, 425, 429})

Json = dict[str, Any]
T = TypeVar("T")


class EndpointError(ValueError):
    """The server did not answer, or not with what was asked for."""


@dataclass(frozen=True)
class Endpoint:
    """A server and how patiently it is asked.

    Attributes:
        url: base such as `http://localhost:8000/v1`.
        model: its name there.
        key_env: environment variable that holds the key; unset for servers without one.
        concurrency: requests under way at a time.
        timeout: seconds for one request.
        retries: further attempts after transport errors, 408, 409, 425, 429 and 5xx.
        backoff: seconds before the first of them, doubled for each further one, with jitter.

    Raises:
        ValueError: the address is malformed or a number is out of its range.
    """

    url: str
    model: str
    key_env: str = "API_KEY"
    concurrency: int = 16
    timeout: float = 60.0
    retries: int = 5
    backoff: float = 1.0

    def __post_init__(self) -> None:
        if not re.match(r"https?://[^\s/]+(?:/\S*)?$", self.url):
            raise ValueError(
                f"answerer.url={self.url!r}: expected the base of an OpenAI-compatible server, "
                "such as http://localhost:8000/v1"
            )
        for name, least in (("concurrency", 1), ("retries", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"answerer.{name}={getattr(self, name)}: expected {least} or more")
        if self.timeout <= 0 or self.backoff < 0:
            raise ValueError(
                f"answerer.timeout={self.timeout}, answerer.backoff={self.backoff}: expected a "
                "timeout above 0 and a wait of 0 or more"
            )


class ApiAnswerer:
    """A model behind a server.

    Args:
        endpoint: the server.
        show: item id -> what the model is shown.
        template: how prompts are written.
        max_new_tokens: longest answer.
        data: name of the data set behind `show`, for the fingerprint.

    Attributes:
        requests: sent, repeated ones included.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        show: Show,
        template: Template,
        max_new_tokens: int = 5,
        data: str = "",
    ) -> None:
        self.endpoint = endpoint
        self.show = show
        self.template = template
        self.max_new_tokens = max_new_tokens
        self.requests = 0
        named = f"{endpoint.url}|{endpoint.model}|{data}"
        self._fingerprint = f"api-{API_VERSION}-{hashlib.sha256(named.encode()).hexdigest()[:16]}"
        # Its own generator: jitter must not move the run's random numbers.
        self._random = random.Random()

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def generate(self, prompts: Sequence[Prompted]) -> list[str]:
        """Answer each prompt.

        Raises:
            EndpointError: the server did not answer one of them.
        """
        return asyncio.run(self._each(prompts, self._answer))

    def answer_logprob(self, prompts: Sequence[Prompted], answers: Sequence[str]) -> list[float]:
        """Log-probability of each answer, mean a token, in nats.

        Raises:
            EndpointError: the server did not answer, or does not score prompts.
        """
        pairs = list(zip(prompts, answers, strict=True))
        return asyncio.run(self._each(pairs, self._score))

    async def _each(
        self, items: Sequence[Any], ask: Callable[[httpx.AsyncClient, Any], Awaitable[T]]
    ) -> list[T]:
        gate = asyncio.Semaphore(self.endpoint.concurrency)
        async with httpx.AsyncClient(
            headers=self._headers(), timeout=self.endpoint.timeout
        ) as client:

            async def one(item: Any) -> T:
                async with gate:
                    return await ask(client, item)

            # Errors are gathered, so that no request is left behind unawaited.
            done = await asyncio.gather(*map(one, items), return_exceptions=True)
        said: list[T] = []
        for result in done:
            if isinstance(result, BaseException):
                raise result
            said.append(result)
        return said

    async def _answer(self, client: httpx.AsyncClient, prompt: Prompted) -> str:
        shots, query = self._shown(prompt)
        messages = self._messages(shots, query)
        length = {"max_tokens": self.max_new_tokens}
        if messages is None:
            body = {"prompt": self._text(shots, query), **length}
            reply = await self._post(client, "completions", body)
            said = _dig(reply, "choices", 0, "text")
        else:
            reply = await self._post(client, "chat/completions", {"messages": messages, **length})
            said = _dig(reply, "choices", 0, "message", "content")
        if not isinstance(said, str):
            raise EndpointError(f"query {prompt.query}: {self.endpoint.url} replied without a text")
        return self.template.cut(said)

    async def _score(self, client: httpx.AsyncClient, asked: tuple[Prompted, str]) -> float:
        prompt, answer = asked
        shots, query = self._shown(prompt)
        answer = f"{self.template.answer_prefix}{answer}"
        messages = self._messages(shots, query)
        if messages is None:
            scores = await self._score_text(client, self._text(shots, query), answer)
        else:
            scores = await self._score_chat(client, messages, answer)
        if not scores:
            raise EndpointError(
                f"query {prompt.query}: {self.endpoint.url} gave no log-probabilities that cover "
                f"exactly the answer {answer!r}: expected a server that scores prompts (vLLM: echo "
                "on /completions, prompt_logprobs on /chat/completions); generating needs none, "
                "so rl_data works with rl_data.gt_prob=false"
            )
        return sum(scores) / len(scores)

    async def _score_text(
        self, client: httpx.AsyncClient, text: str, answer: str
    ) -> list[float] | None:
        """Scores of the answer's tokens at the end of a text; None where they are not offered."""
        body = {"prompt": text + answer, "echo": True, "logprobs": 1, "max_tokens": 1}
        found = _dig(await self._post(client, "completions", body), "choices", 0, "logprobs")
        offsets, values = _dig(found, "text_offset"), _dig(found, "token_logprobs")
        if not isinstance(offsets, list) or not isinstance(values, list) or not offsets:
            return None
        end = len(text) + len(answer)  # what follows was generated
        inside = [place for place, at in enumerate(offsets) if len(text) <= at < end]
        # A token that runs across the end of the prompt would count a part of the prompt.
        if not inside or offsets[inside[0]] != len(text):
            return None
        return _numbers([values[place] for place in inside])

    async def _score_chat(
        self, client: httpx.AsyncClient, messages: list[Json], answer: str
    ) -> list[float] | None:
        """Scores of the answer's tokens at the end of a chat; None where they are not offered."""
        body = {
            "messages": [*messages, {"role": "assistant", "content": answer}],
            "add_generation_prompt": False,
            "continue_final_message": True,
            "prompt_logprobs": 0,  # of the prompt's own tokens, and no others
            "max_tokens": 1,
        }
        found = _dig(await self._post(client, "chat/completions", body), "prompt_logprobs")
        scores: list[Any] = []
        text = ""
        for entry in reversed(found if isinstance(found, list) else []):
            if not isinstance(entry, dict) or len(entry) != 1:
                break
            token = next(iter(entry.values()))
            text = f"{_dig(token, 'decoded_token')}{text}"
            scores.append(_dig(token, "logprob"))
            if text == answer:
                return _numbers(scores)
            if len(text) > len(answer):
                break
        return None

    async def _post(self, client: httpx.AsyncClient, path: str, body: Json) -> Json:
        """Ask once and, where that may help, again."""
        url = f"{self.endpoint.url.rstrip('/')}/{path}"
        body = {"model": self.endpoint.model, "temperature": 0, **body}
        problem, wait = "", 0.0
        for attempt in range(self.endpoint.retries + 1):
            if attempt:
                await asyncio.sleep(wait)
            jitter = self._random.uniform(0.5, 1.5)
            wait = min(_MAX_WAIT, self.endpoint.backoff * 2**attempt * jitter)
            self.requests += 1
            try:
                # httpx bounds each read only; a server that drips would hold us for ever.
                async with asyncio.timeout(self.endpoint.timeout):
                    response = await client.post(url, json=body)
                if response.is_success:
                    return dict(response.json())
            except (httpx.HTTPError, TimeoutError, ValueError, TypeError) as error:
                # The name only: the message of a malformed header quotes the key.
                problem = type(error).__name__
                continue
            problem = f"status {response.status_code}: {response.text[:200]}"
            if not (response.is_server_error or response.status_code in _RETRIED):
                break
        raise EndpointError(
            f"{url}: {problem}; what was answered before is kept: run again to go on"
        )

    def _shown(self, prompt: Prompted) -> tuple[list[Shown], Shown]:
        return [self.show(shot) for shot in prompt.shots], self.show(prompt.query)

    def _text(self, shots: Sequence[Shown], query: Shown) -> str:
        if any(one.picture is not None for one in (*shots, query)):
            raise ValueError(
                "answerer.template: pictures go to a server in a chat only: expected "
                "answerer.template=chat, or data without pictures"
            )
        return self.template.text(shots, query)

    def _messages(self, shots: Sequence[Shown], query: Shown) -> list[Json] | None:
        messages = self.template.messages(shots, query)
        if messages is None:
            return None
        pictures = iter(pictures_of(shots, query))
        for turn in messages:
            for part in turn["content"]:
                if part["type"] == "image":
                    part["type"] = "image_url"
                    part["image_url"] = {"url": _data_url(next(pictures))}
        return messages

    def _headers(self) -> dict[str, str]:
        key = os.environ.get(self.endpoint.key_env, "").strip()
        if not key:
            return {}
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ValueError(
                f"environment variable {self.endpoint.key_env}: expected a key of plain characters "
                "without blanks or line breaks"
            )
        return {"Authorization": f"Bearer {key}"}


def _data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")  # lossless: the server sees what a local model would
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _dig(value: Any, *path: str | int) -> Any:
    """Follow keys and places into a reply; None where they lead nowhere."""
    for key in path:
        try:
            value = value[key]
        except (LookupError, TypeError):
            return None
    return value


def _numbers(values: Sequence[Any]) -> list[float] | None:
    return [float(value) for value in values] if all(map(_is_number, values)) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
