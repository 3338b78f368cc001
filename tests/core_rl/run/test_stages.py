from __future__ import annotations

import logging
import math
import os
import threading
from pathlib import Path

import pytest

from core_rl.hardware import RANK_VARIABLES
from core_rl.run.stages import run_stage
from tests.limits import HUNG


def test_a_stage_is_done_once_and_its_figures_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[Path] = []

    def make(folder: Path) -> dict[str, float]:
        calls.append(folder)
        return {"gain": 0.5, "unknown": math.nan}

    first, figures = run_stage("sft", tmp_path, "abc", make)
    with caplog.at_level(logging.INFO):
        second, again = run_stage("sft", tmp_path, "abc", make)
    assert (first, len(calls)) == (second, 1)
    assert figures["gain"] == again["gain"] == 0.5
    assert math.isnan(again["unknown"])
    assert "done before" in caplog.text
    run_stage("sft", tmp_path, "def", make)
    assert len(calls) == 2


def test_two_runs_at_once_make_a_stage_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[Path] = []
    asked = threading.Event()

    class Waiting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "waiting" in record.getMessage():
                asked.set()

    def make(folder: Path) -> dict[str, float]:
        calls.append(folder)
        if len(calls) == 1:
            other.start()
            asked.wait(timeout=HUNG)
        return {"call": float(len(calls))}

    found: list[dict[str, float]] = []
    other = threading.Thread(target=lambda: found.append(run_stage("sft", tmp_path, "k", make)[1]))
    log, handler = logging.getLogger("core_rl.files"), Waiting()
    log.addHandler(handler)
    try:
        with caplog.at_level(logging.INFO, "core_rl.files"):
            first = run_stage("sft", tmp_path, "k", make)[1]
            other.join()
    finally:
        log.removeHandler(handler)
    assert asked.is_set() and len(calls) == 1
    assert found == [first] == [{"call": 1.0}]


def test_the_processes_of_a_run_make_a_stage_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(folder: Path) -> None:
        if "LOCAL_RANK" not in os.environ:
            monkeypatch.setenv("LOCAL_RANK", "1")
            run_stage("sft", tmp_path, "k", make)  # must not wait for the main process

    for name in RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    run_stage("sft", tmp_path, "k", make)


def test_a_killed_stage_goes_on_in_its_folder(tmp_path: Path) -> None:
    def killed(folder: Path) -> None:
        (folder / "shard-0").write_text("kept")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage("beams", tmp_path, "k", killed)

    def resumed(folder: Path) -> dict[str, float]:
        return {"found": float((folder / "shard-0").read_text() == "kept")}

    assert run_stage("beams", tmp_path, "k", resumed)[1] == {"found": 1.0}
