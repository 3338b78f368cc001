"""Requests to a real HTTP server on this machine: order, repetition, refusals, deadlines."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import pytest

from core_rl.servers import endpoint
from core_rl.servers.endpoint import Client, Endpoint, EndpointError, Response, ask_all
from tests.local_server import LocalServer, Reply, running

KEY = "sk-very-secret-0123456789"
# How often this item was asked about, and the item -> the answer; None hangs.
Script = Callable[[int, Any], Reply | None]


def well(item: object) -> Reply:
    return Reply(body=json.dumps({"of": item}).encode())


def refused(status: int, **headers: str) -> Reply:
    return Reply(status, f"no, says {KEY}".encode(), headers)


class Server(LocalServer):
    """Answers as the script says and remembers what was asked."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        self.script = script
        self.asked: list[tuple[str, str, Any]] = []  # method, path, item
        self.keys: list[str | None] = []

    def endpoint(self, **changes: Any) -> Endpoint:
        return Endpoint("a.url", f"{self.url}/v1", "look at it", **{"backoff": 0.001, **changes})

    def reply(self, method: str, path: str, headers: Mapping[str, str], body: str) -> Reply | None:
        item = json.loads(body) if body else None
        with self.lock:
            self.asked.append((method, path, item))
            self.keys.append(headers.get("Authorization"))
            times = self.asked.count((method, path, item))
        return self.script(times, item)


def serving(script: Script) -> AbstractContextManager[Server]:
    return running(Server(script))


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


async def ask(client: Client, item: object) -> Any:
    return await client.ask("say", {"item": item}, read)


def read(response: Response) -> Any:
    return response.json()["of"]["item"]


def test_every_item_is_answered_in_order() -> None:
    with serving(lambda times, item: well(item)) as server:
        assert ask_all(server.endpoint(concurrency=2), [3, 1, 2], ask) == [3, 1, 2]
        assert ask_all(server.endpoint(), [], ask) == []
        assert {path for _, path, _ in server.asked} == {"/v1/say"}
        assert server.keys == [None] * 3


def test_without_a_body_it_is_a_get() -> None:
    with serving(lambda times, item: well("x")) as server:
        said = ask_all(
            server.endpoint(),
            ["models"],
            lambda client, path: client.ask(path, None, lambda response: response.json()["of"]),
        )
        assert said == ["x"]
        assert server.asked == [("GET", "/v1/models", None)]


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 503])
def test_what_may_pass_is_asked_again(status: int) -> None:
    with serving(lambda times, item: refused(status) if times < 3 else well(item)) as server:
        assert ask_all(server.endpoint(retries=2), [1], ask) == [1]
        assert len(server.asked) == 3
        server.asked.clear()
        with pytest.raises(EndpointError) as caught:
            ask_all(server.endpoint(retries=1), [1], ask)
        assert caught.value.problem == f"status {status}"


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_refusal_is_not(status: int) -> None:
    with serving(lambda times, item: refused(status)) as server:
        with pytest.raises(EndpointError) as caught:
            ask_all(server.endpoint(), [1], ask)
        assert len(server.asked) == 1
        # The message quotes the server; the problem, which goes into logs, does not.
        url = server.endpoint().url
        message = f"a.url={url}: POST /say: status {status}: no, says {KEY}; look at it"
        assert str(caught.value) == message
        assert caught.value.problem == f"status {status}"


def test_a_reply_that_cannot_be_read_is_a_failed_attempt() -> None:
    with serving(lambda times, item: Reply(body=b"<html>") if times < 2 else well(item)) as server:
        assert ask_all(server.endpoint(retries=1), [1], ask) == [1]


def test_a_server_that_hangs_is_given_up() -> None:
    with serving(lambda times, item: None if times < 2 else well(item)) as server:
        assert ask_all(server.endpoint(timeout=0.2), [1], ask) == [1]


def test_one_failure_is_raised_when_the_others_are_done() -> None:
    with serving(lambda times, item: refused(400) if item["item"] == 2 else well(item)) as server:
        with pytest.raises(EndpointError):
            ask_all(server.endpoint(concurrency=1), [1, 2, 3], ask)
        assert [item["item"] for _, _, item in server.asked] == [1, 2, 3]


def test_at_the_deadline_the_rest_is_cancelled_and_what_came_is_kept() -> None:
    async def run(server: Server) -> list[asyncio.Task[Any]]:
        async with Client(server.endpoint()) as client:
            return await client.each(["slow", "quick"], ask, deadline=0.5)

    with serving(lambda times, item: None if item["item"] == "slow" else well(item)) as server:
        slow, quick = asyncio.run(run(server))
    assert slow.cancelled()
    assert quick.result() == "quick"


def test_the_server_may_ask_for_a_longer_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MAX_WAIT", 0.05)
    waits: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr(endpoint.asyncio, "sleep", noted)
    said = iter(["0.02", "3600", "Fri, 01 Jan 2100 00:00:00 GMT", "nan"])
    script: Script = lambda times, item: (  # noqa: E731
        refused(429, **{"retry-after": next(said)}) if times < 5 else well(item)
    )
    with serving(script) as server:
        assert ask_all(server.endpoint(backoff=0.0), [1], ask) == [1]
    assert waits == [0.02, 0.05, 0.0, 0.0]


def test_waits_double_with_jitter_that_leaves_the_runs_random_numbers_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    async def noted(seconds: float) -> None:
        waits.append(seconds)

    with serving(lambda times, item: refused(503)) as server:
        monkeypatch.setattr(endpoint.asyncio, "sleep", noted)
        random.seed(7)
        state = random.getstate()
        with pytest.raises(EndpointError, match="status 503"):
            ask_all(server.endpoint(retries=8, backoff=1.0), [1], ask)
    assert random.getstate() == state
    assert len(waits) == 8 and len(server.asked) == 9
    expected = [(0.5 * 2**n, min(1.5 * 2**n, endpoint.MAX_WAIT)) for n in range(8)]
    assert all(low <= wait <= high for wait, (low, high) in zip(waits[:6], expected, strict=False))
    assert waits[7] == endpoint.MAX_WAIT


def test_nobody_there_is_said_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", f" {KEY}\n")
    with serving(lambda times, item: well(item)) as server:
        here = server.endpoint(key_env="SOME_KEY", retries=1)
        ask_all(here, [1], ask)
        assert server.keys == [f"Bearer {KEY}"]
    with pytest.raises(EndpointError, match="ConnectError; look at it") as caught:
        ask_all(here, [1], ask)
    assert KEY not in str(caught.value)
    monkeypatch.setenv("SOME_KEY", f"{KEY}\nx")
    with pytest.raises(ValueError, match="environment variable SOME_KEY: expected") as caught_key:
        ask_all(here, [1], ask)
    assert KEY not in str(caught_key.value)
