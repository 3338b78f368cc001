"""Requests to a server over HTTP: several at a time, repeated after errors that may pass."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

try:
    import httpx
    from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
except ImportError as error:
    raise ImportError(
        "a judge, answerer.kind=api and rollout.engine.kind=vllm ask a server, which needs httpx "
        "and tenacity: pip install 'people-focus-rl[judge]'"
    ) from error

# httpx logs a line for each request.
logging.getLogger("httpx").setLevel(logging.WARNING)

MAX_WAIT = 60.0  # seconds between two attempts, also where the server asks for more
PASSING = frozenset({408, 409, 425, 429})  # statuses that may pass, beside every 5xx
SAID = 300  # characters of an error reply that are quoted

Response = httpx.Response
Item = TypeVar("Item")
T = TypeVar("T")


class EndpointError(ValueError):
    """A server did not answer, or not with what was asked for.

    Attributes:
        problem: in two words, without anything that the server said.
        may_pass: another attempt may succeed.
        wait: seconds that the server asks for before it.
    """

    def __init__(
        self, message: str, problem: str = "", may_pass: bool = False, wait: float = 0.0
    ) -> None:
        super().__init__(message)
        self.problem = problem
        self.may_pass = may_pass
        self.wait = wait


@dataclass(frozen=True)
class Endpoint:
    """A server, its time limits and retries; the settings it is made of check their ranges.

    Attributes:
        name: of the setting that holds `url`, for messages.
        url: base such as `http://localhost:8000/v1`.
        cure: what to do when it does not answer, for messages.
        key_env: environment variable that holds the key; empty or unset for servers without one.
        concurrency: items asked about at a time.
        timeout: seconds for one request.
        retries: further attempts after transport errors and statuses that may pass.
        backoff: seconds before the first of them, doubled for each further one, with jitter.
    """

    name: str
    url: str
    cure: str
    key_env: str = ""
    concurrency: int = 8
    timeout: float = 60.0
    retries: int = 4
    backoff: float = 1.0


class Client:
    """Requests to an endpoint from one event loop; to be used in `async with`.

    Args:
        endpoint: the server.

    Attributes:
        repeated: requests that were made again.

    Raises:
        ValueError: the key cannot be sent.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.repeated = 0
        self._http = httpx.AsyncClient(
            headers=_authorization(endpoint.key_env),
            timeout=endpoint.timeout,
            limits=httpx.Limits(max_connections=endpoint.concurrency),
        )
        # A generator of its own, so that jitter does not change the random numbers of the run.
        self._random = random.Random()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(
        self, path: str, body: Mapping[str, Any] | None, read: Callable[[Response], T]
    ) -> T:
        """Send one request; repeat it after errors that may pass.

        Args:
            path: after the base, without a leading slash.
            body: sent as JSON by POST; None sends a GET.
            read: extracts the result from a reply; its ValueError or TypeError counts as a failed
                attempt.

        Raises:
            EndpointError: no attempt succeeded.
        """
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.endpoint.retries + 1),
            retry=retry_if_exception(
                lambda error: isinstance(error, EndpointError) and error.may_pass
            ),
            wait=self._wait,
            before_sleep=self._count,
            sleep=asyncio.sleep,
            reraise=True,
        )
        return await retrying(self._attempt, path, body, read)

    async def _attempt(
        self, path: str, body: Mapping[str, Any] | None, read: Callable[[Response], T]
    ) -> T:
        method = "GET" if body is None else "POST"
        about = f"{self.endpoint.name}={self.endpoint.url}: {method} /{path}"
        url = f"{self.endpoint.url.rstrip('/')}/{path}"
        try:
            # httpx limits each read only; a server that sends byte by byte would never end.
            async with asyncio.timeout(self.endpoint.timeout):
                response = await self._http.request(method, url, json=body)
            if response.is_success:
                return read(response)
        except (httpx.HTTPError, TimeoutError, ValueError, TypeError, RecursionError) as error:
            # The name only: the message of a malformed header quotes the key.
            problem = type(error).__name__
            raise EndpointError(
                f"{about}: {problem}; {self.endpoint.cure}", problem, True
            ) from error
        problem = f"status {response.status_code}"
        raise EndpointError(
            f"{about}: {problem}: {response.text[:SAID]}; {self.endpoint.cure}",
            problem,
            response.is_server_error or response.status_code in PASSING,
            _seconds(response.headers.get("retry-after")),
        )

    def _wait(self, state: RetryCallState) -> float:
        """Seconds before the next attempt; jitter spreads clients that failed together."""
        assert state.outcome is not None
        error = state.outcome.exception()
        assert isinstance(error, EndpointError)
        doubled = self.endpoint.backoff * 2 ** (state.attempt_number - 1)
        return max(error.wait, min(MAX_WAIT, doubled * self._random.uniform(0.5, 1.5)))

    def _count(self, state: RetryCallState) -> None:
        self.repeated += 1

    async def each(
        self,
        items: Sequence[Item],
        ask: Callable[[Client, Item], Coroutine[Any, Any, T]],
        deadline: float | None = None,
    ) -> list[asyncio.Task[T]]:
        """Ask about every item, as many at a time as the endpoint allows.

        Args:
            items: what to ask about.
            ask: makes the requests for one of them.
            deadline: seconds for all of them; None = no limit.

        Returns:
            A finished task for each item: with a result or an error, or cancelled at the deadline.
        """
        gate = asyncio.Semaphore(self.endpoint.concurrency)

        async def one(item: Item) -> T:
            async with gate:
                return await ask(self, item)

        tasks = [asyncio.create_task(one(item)) for item in items]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=deadline)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return tasks


def ask_all(
    endpoint: Endpoint,
    items: Sequence[Item],
    ask: Callable[[Client, Item], Coroutine[Any, Any, T]],
) -> list[T]:
    """Ask about every item and wait for all answers, which come in the order of the items.

    Raises:
        EndpointError: one of them was not answered; the others have finished.
    """

    async def run() -> list[T]:
        # A client belongs to one event loop, and each call has its own.
        async with Client(endpoint) as client:
            tasks = await client.each(items, ask)
        return [task.result() for task in tasks]

    return asyncio.run(run())


def _authorization(key_env: str) -> dict[str, str]:
    """Make the header with the key, which is read from the environment only."""
    key = os.environ.get(key_env, "").strip()
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError(
            f"environment variable {key_env}: expected a key of plain characters without blanks or "
            "line breaks"
        )
    return {"Authorization": f"Bearer {key}"}


def _seconds(retry_after: str | None) -> float:
    """Read a Retry-After header in seconds; 0 where it is absent or a date."""
    try:
        seconds = float(retry_after or 0)
    except ValueError:
        return 0.0
    return min(max(seconds, 0.0), MAX_WAIT) if math.isfinite(seconds) else 0.0
