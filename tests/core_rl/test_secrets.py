"""Keys and passwords stay out of texts, logs and files."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from core_rl.files import write_json, write_text
from core_rl.secrets import scrub, scrub_file, scrub_logs

KEY = "sk-live-0123456789abcdef"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", KEY)
    monkeypatch.setenv("SOME_TOKEN", "100000000")  # a number stands in every table
    monkeypatch.setenv("KEY", "short")
    monkeypatch.setenv("KEYBOARD", "querty-layout")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"401: no such key {KEY}!", "401: no such key ***!"),
        ("http://me:pa55-word@host:80/v1 down", "http://***@host:80/v1 down"),
        ("https://:only@host", "https://***@host"),
        ("see https://h/v1?api_key=abc&x=1", "see https://h/v1?api_key=***&x=1"),
        ("Authorization: Bearer abcdefghij.klm", "Authorization: Bearer ***"),
        ("http://host:8000/v1, me@host, a:b@c", "http://host:8000/v1, me@host, a:b@c"),
        ("100000000 short querty-layout Bearer of news", None),
        ("", None),
    ],
)
def test_texts(text: str, clean: str | None) -> None:
    assert scrub(text) == (text if clean is None else clean)


def test_logs_with_arguments_and_tracebacks(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "_logRecordFactory", logging.LogRecord)
    scrub_logs()
    scrub_logs()  # once is enough
    log = logging.getLogger("core_rl.any")
    try:
        raise ValueError(f"the server said {KEY}")
    except ValueError:
        log.exception("%s failed at %d", f"http://u:{KEY}@h", 3)
    log.warning("100 %% of %s", "it")
    assert KEY not in caplog.text
    assert "http://***@h failed at 3" in caplog.text
    assert "ValueError: the server said ***" in caplog.text
    assert "100 % of it" in caplog.text


def test_files(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", f"key {KEY}")
    write_json(tmp_path / "b.json", {"url": "http://u:secret@h", "n": 100000000})
    (tmp_path / "c.yaml").write_bytes(f"k: {KEY} \xff".encode("latin-1"))
    scrub_file(tmp_path / "c.yaml")
    assert (tmp_path / "a.txt").read_text() == "key ***"
    assert '"http://***@h"' in (tmp_path / "b.json").read_text()
    assert (tmp_path / "c.yaml").read_bytes() == b"k: *** \xff"
