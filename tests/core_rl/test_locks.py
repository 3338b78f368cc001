"""One process at a time."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from core_rl.locks import alone


def test_another_waits_says_so_and_comes_after(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "core_rl.locks")
    waits = threading.Event()

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            waits.set()

    done: list[str] = []

    def second() -> None:
        with alone(tmp_path / "made", tmp_path / "lock"):
            done.append("second")

    heard = Heard()
    logging.getLogger("core_rl.locks").addHandler(heard)
    other = threading.Thread(target=second)
    try:
        with alone(tmp_path / "made", tmp_path / "lock"):
            other.start()
            assert waits.wait(timeout=30)
            done.append("first")
        other.join(timeout=30)
    finally:
        logging.getLogger("core_rl.locks").removeHandler(heard)
    assert done == ["first", "second"]
    assert "made: another process makes it" in caplog.text
