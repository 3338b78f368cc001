"""Records that cannot be used raise, or are skipped, named and counted."""

from __future__ import annotations

import pytest

from core_rl.bad_records import SHOWN, Skips
from core_rl.config import OnBadRecord


def test_the_first_bad_record_is_an_error() -> None:
    with pytest.raises(ValueError, match="record 3"):
        Skips(OnBadRecord.error).add(ValueError("record 3"))


def test_skipped_records_are_counted_and_the_first_few_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    skips = Skips(OnBadRecord.skip)
    for number in range(SHOWN + 2):
        skips.add(ValueError(f"record {number}"))
    skips.report("a.json")
    assert skips.count == len(skips.messages) == SHOWN + 2
    assert caplog.messages[: SHOWN + 1] == [
        *(f"skipped: record {number}" for number in range(SHOWN)),
        f"a.json: skipped {SHOWN + 2} records that cannot be used",
    ]


def test_the_policy_may_be_given_as_text() -> None:
    with pytest.raises(ValueError, match="bad"):
        Skips("error").add(ValueError("bad"))  # type: ignore[arg-type]
    skips = Skips("skip")  # type: ignore[arg-type]
    skips.add(ValueError("bad"))
    assert skips.count == 1
    with pytest.raises(ValueError, match="skp"):
        Skips("skp")  # type: ignore[arg-type]
