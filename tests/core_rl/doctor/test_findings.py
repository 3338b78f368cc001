from __future__ import annotations

import pickle

from core_rl.doctor.findings import (
    Finding,
    UnhealthyError,
    Verdict,
    failed,
    health_metrics,
    health_table,
)

GOOD = Finding("parity/max_abs", 1e-6, "<= 1e-3", Verdict.ok)
BAD = Finding("cache/length", 0.0, "157", Verdict.fail, "the cache was lost", "model.eval()")
UNKNOWN = Finding("media/video", None, "> 0", Verdict.skipped)


def test_only_a_failure_is_one() -> None:
    assert failed([GOOD, BAD])
    assert not failed([GOOD, UNKNOWN, Finding("a", 1.0, "0", Verdict.warn)])


def test_metrics_hold_what_was_measured() -> None:
    assert health_metrics([GOOD, UNKNOWN]) == {"health/parity/max_abs": 1e-6}


def test_the_table_begins_with_failures() -> None:
    table = health_table([GOOD, UNKNOWN, BAD])
    assert list(table["check"]) == ["cache/length", "parity/max_abs", "media/video"]
    assert list(table["figure"]) == ["0", "1e-06", ""]
    assert list(health_table([]).columns) == list(table.columns)


def test_the_error_names_cause_and_cure_of_failures_alone() -> None:
    message = str(UnhealthyError([GOOD, BAD]))
    assert message == "cache/length: the cache was lost; model.eval()"


def test_the_error_survives_the_way_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(UnhealthyError([GOOD, BAD])))
    assert error.findings == [BAD]
    assert str(error) == str(UnhealthyError([BAD]))
