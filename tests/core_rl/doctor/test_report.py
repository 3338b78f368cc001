"""Findings as files: what is written is read back, and what is not well is told."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from core_rl.doctor.findings import Finding, Verdict
from core_rl.doctor.report import (
    read_rounds,
    round_of,
    text_of,
    warn_of,
    write_findings,
    write_rounds,
)

GOOD = Finding("parity/max_abs", 1e-6, "<= 1e-3", Verdict.ok)
BAD = Finding("cache/length", 0.0, "157", Verdict.fail, "the <cache> was lost", "model.eval()")
ODD = Finding("data/size", None, "many", Verdict.warn, "few", "more")


def test_rounds_are_read_back(tmp_path: Path) -> None:
    write_rounds(tmp_path, [round_of(0, [GOOD, ODD]), round_of(3, [BAD])])
    assert read_rounds(tmp_path) == [GOOD, ODD, BAD]
    rounds = json.loads((tmp_path / "health.json").read_text())["rounds"]
    assert [(one["step"], one["healthy"]) for one in rounds] == [(0, True), (3, False)]


def test_what_is_not_well_is_told_with_its_cure(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of([GOOD, BAD, ODD])
    assert [record.getMessage() for record in caplog.records] == [
        "FAIL cache/length: the <cache> was lost -> model.eval()",
        "warn data/size: few -> more",
    ]
    assert "cure:  model.eval()" in text_of([GOOD, BAD])


def test_a_check_leaves_a_table_for_people_and_figures(tmp_path: Path) -> None:
    figures = write_findings(tmp_path, [GOOD, BAD, ODD], "a check")
    assert (figures["health/failed"], figures["health/warned"], figures["health/well"]) == (1, 1, 1)
    assert figures["health/cache/length"] == 0.0
    assert "the &lt;cache&gt; was lost" in (tmp_path / "doctor.html").read_text()
    assert "cause: few" in (tmp_path / "doctor.txt").read_text()
    assert read_rounds(tmp_path) == [GOOD, BAD, ODD]
