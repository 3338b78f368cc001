"""The judge's client against a real HTTP server on this machine."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from omni_rl.rewards.judge import Judge, api_wanted
from omni_rl.rewards.judged import score_parser
from tests.omni_rl.judge_server import JudgeServer, Script, reply, serving

KEY = "sk-very-secret-0123456789"
parse = score_parser(10)


Serve = Callable[[Script], JudgeServer]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start servers that the environment variable API then names."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("API_KEY", KEY)
    with ExitStack() as stack:

        def start(script: Script) -> JudgeServer:
            server = stack.enter_context(serving(script))
            monkeypatch.setenv("API", server.url)
            return server

        yield start


def ask(judge: Judge, *prompts: str | None) -> list[float | None]:
    return asyncio.run(judge.ask_many(prompts, parse))


def test_a_batch_is_answered_in_order_and_equal_prompts_once(serve: Serve) -> None:
    server = serve(lambda attempt, prompt: (200, reply(f"fine.\nScore: {prompt}")))
    judge = Judge("m")
    assert ask(judge, "3", None, "7", "3") == [0.3, None, 0.7, 0.3]
    assert sorted(server.prompts) == ["3", "7"]
    assert set(server.paths) == {"/v1/chat/completions"}
    assert {h["Authorization"] for h in server.headers} == {f"Bearer {KEY}"}
    assert (judge.counts.asked, judge.counts.failed) == (2, 0)


def test_the_setting_wins_over_the_environment(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(lambda attempt, prompt: (200, reply("Score: 1")))
    monkeypatch.setenv("API", "http://127.0.0.1:9/nowhere")
    assert ask(Judge("m", url=f"{server.url}/chat/completions"), "p") == [0.1]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_passing_fault_is_retried(serve: Serve, status: int) -> None:
    server = serve(lambda n, prompt: (status, b"busy") if n < 3 else (200, reply("Score: 5")))
    judge = Judge("m", backoff=0.001)
    assert ask(judge, "p") == [0.5]
    assert len(server.prompts) == 3
    assert (judge.counts.asked, judge.counts.retried, judge.counts.failed) == (1, 2, 0)


def test_a_refusal_is_not_retried(serve: Serve) -> None:
    server = serve(lambda n, prompt: (401, b"who are you"))
    judge = Judge("m")
    assert ask(judge, "p") == [None]
    assert len(server.prompts) == 1
    assert judge.counts.failed == 1


def test_a_server_that_hangs_is_given_up(serve: Serve) -> None:
    server = serve(lambda n, prompt: None if n < 2 else (200, reply("Score: 5")))
    # On a busy machine a real answer may be late as well: then it is asked for once more.
    judge = Judge("m", timeout=0.5, retries=50, backoff=0.001)
    assert ask(judge, "p") == [0.5]
    assert judge.counts.retried >= 1 and len(server.prompts) >= 2


def test_the_deadline_ends_a_batch_and_keeps_what_came(serve: Serve) -> None:
    serve(lambda n, prompt: None if prompt == "slow" else (200, reply("Score: 5")))
    began = time.monotonic()
    assert ask(Judge("m"), "quick") == [0.5]
    judge = Judge("m", deadline=0.5 + 10 * (time.monotonic() - began))
    assert ask(judge, "slow", "quick") == [None, 0.5]
    assert judge.counts.failed == 1


def test_no_server_at_all_is_counted_and_the_run_goes_on(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    judge = Judge("m", url="http://127.0.0.1:9", retries=1, backoff=0.001)
    with caplog.at_level(logging.WARNING):
        assert ask(judge, "p", "q") == [None, None]
    assert judge.counts.failed == 2
    assert "of 2 prompts {'ConnectError': 2}" in caplog.text


@pytest.mark.parametrize(
    "body",
    [
        b"<html>hello</html>",
        b"[]",
        b"[" * 100_000,
        b'{"choices": ' + b"[" * 100_000,
        b'{"choices": []}',
        reply(None),
        reply("I would rather not say."),
        reply("Score: 11"),  # off the scale
        reply("Score: -1"),
    ],
)
def test_garbage_is_none_counted_and_not_kept(serve: Serve, tmp_path: Path, body: bytes) -> None:
    serve(lambda n, prompt: (200, body) if n == 1 else (200, reply("Score: 5")))
    judge = Judge("m", cache=tmp_path / "judge.sqlite")
    assert ask(judge, "p") == [None]
    assert (judge.counts.unparsable, judge.counts.failed) == (1, 0)
    assert ask(judge, "p") == [0.5]


def test_replies_are_kept_on_disk_by_model_and_prompt(serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda n, prompt: (200, reply("Score: 5")))
    cache = tmp_path / "new" / "judge.sqlite"
    assert ask(Judge("m", cache=cache), "p", "q") == [0.5, 0.5]
    again = Judge("m", cache=str(cache))
    assert ask(again, "p", "q") == [0.5, 0.5]
    assert (again.counts.cached, again.counts.asked) == (2, 0)
    assert len(server.prompts) == 2
    assert ask(Judge("other", cache=cache), "p") == [0.5]
    assert len(server.prompts) == 3


def test_a_full_cache_needs_no_endpoint(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(lambda n, prompt: (200, reply("Score: 5")))
    cache = tmp_path / "judge.sqlite"
    ask(Judge("m", cache=cache), "p")
    monkeypatch.delenv("API")
    assert ask(Judge("m", cache=cache), "p") == [0.5]


def test_replies_of_an_earlier_version_are_taken_over(serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda n, prompt: (200, reply("Score: 5")))
    path = tmp_path / "judge.sqlite"
    key = hashlib.sha256(json.dumps(["m", "p"]).encode()).hexdigest()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE replies (key TEXT PRIMARY KEY, reply TEXT)")
        db.execute("INSERT INTO replies VALUES (?, ?)", (key, 'It is "good".\nScore: 7'))
    for _ in range(2):
        assert ask(Judge("m", cache=path), "p") == [0.7]
    assert not server.prompts


def test_a_cache_that_is_damaged_during_the_run_costs_a_warning(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    serve(lambda n, prompt: (200, reply("Score: 5")))
    path = tmp_path / "judge.sqlite"
    judge = Judge("m", cache=path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TABLE entries")
    assert ask(judge, "p") == [0.5]
    assert caplog.text.count("expected a file of judge replies (no such table") == 2


def test_half_a_character_in_a_reply_is_kept(serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda n, prompt: (200, reply("\ud83d\nScore: 5")))
    for _ in range(2):
        assert ask(Judge("m", cache=tmp_path / "judge.sqlite"), "p") == [0.5]
    assert len(server.prompts) == 1


def test_a_file_that_is_no_cache_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, and long enough to be read as one\n" * 30)
    with pytest.raises(ValueError, match=r"notes\.txt: expected a file of judge replies"):
        Judge("m", cache=path)


def test_the_key_is_never_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(lambda n, prompt: (200, reply("Score: 5")) if prompt == "p" else (403, KEY.encode()))
    judge = Judge("m", retries=0)
    with caplog.at_level(logging.DEBUG):
        assert ask(judge, "p", "refused") == [0.5, None]
        monkeypatch.setenv("API_KEY", f"{KEY}\nx")
        with pytest.raises(ValueError, match="API_KEY: expected") as caught:
            ask(judge, "q")
    assert caplog.text
    assert KEY not in caplog.text
    assert KEY not in repr(judge)
    assert KEY not in str(caught.value)


def test_a_server_without_a_key_gets_none(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(lambda n, prompt: (200, reply("Score: 5")))
    monkeypatch.delenv("API_KEY")
    assert ask(Judge("m"), "p \ud800 half a character") == [0.5]
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize("url", ["", "ftp://x", "host/v1", "http://a b"])
def test_a_missing_or_malformed_endpoint_says_what_to_set(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API", url)
    with pytest.raises(ValueError, match="set its `url` or the environment variable API"):
        ask(Judge("m"), "p")


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="timeout=0"):
        Judge("m", timeout=0)
    with pytest.raises(ValueError, match="retries=-1"):
        Judge("m", retries=-1)


def test_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("USE_API_REWARD", raising=False)
    assert not api_wanted()
    assert api_wanted(True)
    monkeypatch.setenv("USE_API_REWARD", "True")
    assert api_wanted()
    assert not api_wanted(False)
    monkeypatch.setenv("USE_API_REWARD", "perhaps")
    with pytest.raises(ValueError, match="USE_API_REWARD='perhaps'"):
        api_wanted()
