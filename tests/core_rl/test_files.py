"""Whole files or none, and one process at a time."""

from __future__ import annotations

import json
import logging
import math
import threading
from pathlib import Path

import pytest

from core_rl.files import alone, write_json, write_text
from tests.limits import HUNG


def test_another_waits_says_so_and_comes_after(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "core_rl.files")
    waits = threading.Event()

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            waits.set()

    done: list[str] = []

    def second() -> None:
        with alone(tmp_path / "made", tmp_path / "lock"):
            done.append("second")

    heard = Heard()
    logging.getLogger("core_rl.files").addHandler(heard)
    other = threading.Thread(target=second)
    try:
        with alone(tmp_path / "made", tmp_path / "lock"):
            other.start()
            assert waits.wait(timeout=HUNG)
            done.append("first")
        other.join(timeout=HUNG)
    finally:
        logging.getLogger("core_rl.files").removeHandler(heard)
    assert done == ["first", "second"]
    assert "made: another process makes it" in caplog.text


def test_numbers_that_are_none_become_null(tmp_path: Path) -> None:
    value = {"a": math.nan, "b": [math.inf, 1.5], "c": {"d": -math.inf}, "e": (1, "x", None)}
    write_json(tmp_path / "deep" / "m.json", value)
    text = (tmp_path / "deep" / "m.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text) == {
        "a": None,
        "b": [None, 1.5],
        "c": {"d": None},
        "e": [1, "x", None],
    }


def test_text_stays_readable(tmp_path: Path) -> None:
    write_json(tmp_path / "m.json", {"said": "\u4eba\u7269"})
    assert "\u4eba\u7269" in (tmp_path / "m.json").read_text(encoding="utf-8")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "m.json"
    write_json(target, {"a": 1})
    with pytest.raises(TypeError):
        write_json(target, {"a": object()})
    with pytest.raises(UnicodeEncodeError):
        write_text(target, "half of it \ud800")
    assert json.loads(target.read_text()) == {"a": 1}
