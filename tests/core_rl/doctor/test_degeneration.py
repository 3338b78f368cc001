"""Repetition, ends, language and rewards that teach nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from core_rl.config import DoctorConfig
from core_rl.doctor.degeneration import (
    RewardWatch,
    degeneration_findings,
    foreign_share,
    repetition,
    script_of,
)
from core_rl.doctor.findings import Finding, Verdict
from core_rl.types import Actions, RewardTable

LIMITS = DoctorConfig(flat_groups=4)


def actions_of(rows: list[list[int]], texts: list[str] | None = None, cut: bool = False) -> Actions:
    longest = max(map(len, rows))
    ids = torch.tensor([[row + [0] * (longest - len(row)) for row in rows]])
    mask = torch.tensor([[[t < len(row) for t in range(longest)] for row in rows]])
    return Actions(
        ids,
        mask,
        truncated_BG=torch.full((1, len(rows)), cut),
        texts=() if texts is None else (tuple(texts),),
    )


def verdicts(found: list[Finding]) -> dict[str, Verdict]:
    return {one.check: one.verdict for one in found}


# -- repetition ----------------------------------------------------------------------------------


def test_repetition_of_a_known_row() -> None:
    seen = repetition(actions_of([[1, 2, 1, 2, 1, 2, 1, 2]]))
    assert seen.top_share == 0.5
    assert seen.distinct_2 == pytest.approx(2 / 7)
    assert seen.repeated == pytest.approx(1 - 2 / 5)  # 5 runs of four, 2 distinct
    nothing = repetition(actions_of([list(range(8))]))
    assert (nothing.top_share, nothing.distinct_2, nothing.repeated) == (1 / 8, 1.0, 0.0)


def test_padding_and_short_candidates_do_not_count() -> None:
    seen = repetition(actions_of([list(range(1, 17)), [3, 3, 3]]))
    assert seen.judged == 1 and seen.repeated == 0.0
    none = repetition(actions_of([[1], [2, 2]]))
    assert none.judged == 0 and math.isnan(none.top_share)
    found = verdicts(degeneration_findings(actions_of([[1], [2, 2]]), LIMITS))
    assert found["degeneration/top_share"] is Verdict.skipped


def test_the_garbled_run_of_the_source_is_recognised() -> None:
    """`<`, `context`, then `system` for ever; some rows end, all look alike."""
    garbled = actions_of([[5, 6, *[7] * 40], [5, 6, *[7] * 30, 8, 9]])
    found = degeneration_findings(garbled, LIMITS)
    failing = {one.check for one in found if one.verdict is Verdict.fail}
    assert failing == {
        "degeneration/top_share",
        "degeneration/distinct_2",
        "degeneration/repeated_4",
    }
    assert all("parity" in one.cure for one in found if one.verdict is Verdict.fail)


def test_a_loop_of_several_words_is_recognised() -> None:
    found = verdicts(degeneration_findings(actions_of([[1, 2, 3, 4, 5] * 8]), LIMITS))
    assert found["degeneration/repeated_4"] is Verdict.fail
    assert found["degeneration/top_share"] is Verdict.ok


@pytest.mark.parametrize("seed", range(20))
def test_sampled_text_is_cleared(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, 60, (6, 40), generator=generator).tolist()
    found = verdicts(degeneration_findings(actions_of(rows), LIMITS))
    assert Verdict.fail not in found.values() and Verdict.warn not in found.values()


def test_completions_that_never_end_are_warned_of() -> None:
    rows = [list(range(row, row + 10)) for row in range(8)]
    found = verdicts(degeneration_findings(actions_of(rows, cut=True), LIMITS))
    assert found["degeneration/ended"] is Verdict.warn
    cut_on_purpose = degeneration_findings(actions_of(rows, cut=True), LIMITS, complete=False)
    assert verdicts(cut_on_purpose)["degeneration/ended"] is Verdict.skipped
    fixed_length = replace(actions_of(rows), truncated_BG=None)
    found = verdicts(degeneration_findings(fixed_length, LIMITS))
    assert found["degeneration/ended"] is Verdict.skipped


def test_blank_completions_are_found() -> None:
    rows = [[1], [1], [2, 3]]
    found = verdicts(degeneration_findings(actions_of(rows, ["", " ", "yes"]), LIMITS))
    assert found["degeneration/blank"] is Verdict.fail
    found = verdicts(degeneration_findings(actions_of(rows, ["no", "", "yes"]), LIMITS))
    assert found["degeneration/blank"] is Verdict.ok


# -- language ------------------------------------------------------------------------------------

ENGLISH = "What does the person in the video do?"
CHINESE = "视频中的人在做什么呢请仔细观察他们的动作和表情再回答"


def test_scripts_of_letters() -> None:
    assert [script_of(char) for char in "aé视Я8 ,"] == [
        "LATIN",
        "LATIN",
        "CJK",
        "CYRILLIC",
        None,
        None,
        None,
    ]


def test_drift_is_the_share_of_letters_of_other_scripts() -> None:
    assert foreign_share([ENGLISH], [ENGLISH]) == 0
    assert foreign_share([CHINESE], [ENGLISH]) == 1
    assert foreign_share(["a" * 30 + "я" * 10], [ENGLISH]) == 0.25
    assert foreign_share([ENGLISH], [CHINESE, ENGLISH]) == 0  # both are spoken here
    assert math.isnan(foreign_share(["ok"], [ENGLISH]))


def test_drift_is_found_in_completions() -> None:
    rows = [list(range(10))]
    drifted = actions_of(rows, [CHINESE])
    found = verdicts(degeneration_findings(drifted, LIMITS, [ENGLISH]))
    assert found["degeneration/foreign_script"] is Verdict.fail
    found = verdicts(degeneration_findings(drifted, LIMITS, [CHINESE]))
    assert found["degeneration/foreign_script"] is Verdict.ok
    assert verdicts(degeneration_findings(drifted, LIMITS))["degeneration/foreign_script"] is (
        Verdict.skipped
    )


# -- rewards -------------------------------------------------------------------------------------


def table(**values: list[list[float]]) -> RewardTable:
    stacked = torch.tensor(list(values.values()))
    return RewardTable(tuple(values), stacked, stacked.sum(0))


def watched(*tables: RewardTable, mixed: bool = False) -> dict[str, Finding]:
    watch = RewardWatch(LIMITS)
    for one in tables:
        watch.add(one, torch.full((one.total_BG.shape[0],), mixed))
    return {one.check: one for one in watch.findings()}


FLOOR = table(format=[[0.0, 0.0], [0.0, 0.0]], people=[[0.1, 0.1], [0.1, 0.1]])


def test_a_constant_reward_is_named_with_its_value() -> None:
    found = watched(FLOOR, FLOOR)
    flat = found["reward/flat_share"]
    assert flat.verdict is Verdict.fail and flat.figure == 1
    assert "people is 0.1 everywhere" in flat.cause and "format is 0 everywhere" in flat.cause
    assert found["reward/spread_people"].verdict is Verdict.warn


def test_a_few_flat_groups_are_no_verdict_yet() -> None:
    assert watched(FLOOR)["reward/flat_share"].verdict is Verdict.warn
    spread = watched(FLOOR)["reward/spread_people"]
    assert spread.verdict is Verdict.skipped and "2 groups" in spread.expected
    assert spread.figure is None


def test_rewards_that_differ_between_questions_only_teach_nothing_either() -> None:
    easy_or_hard = table(accuracy=[[1.0, 1.0], [0.0, 0.0]])
    found = watched(easy_or_hard, easy_or_hard)
    assert found["reward/flat_share"].verdict is Verdict.fail
    assert "none inside a group" in found["reward/flat_share"].cause
    assert found["reward/spread_accuracy"].verdict is Verdict.ok


def test_one_mixed_group_is_a_signal() -> None:
    watch = RewardWatch(LIMITS)
    for mixed in (False, False, True):
        watch.add(FLOOR, torch.tensor([mixed, False]))
    flat = watch.findings()[0]
    assert flat.verdict is Verdict.ok and flat.figure == pytest.approx(5 / 6)
    watch.clear()
    assert watch.findings()[0].verdict is Verdict.skipped


def test_candidates_nobody_judged_are_left_out() -> None:
    nan = math.nan
    found = watched(table(judge=[[nan, 1.0], [0.0, nan]]), mixed=True)
    assert found["reward/spread_judge"].figure == pytest.approx(0.5**0.5)
    silent = table(judge=[[nan, nan], [nan, nan]])
    assert watched(silent)["reward/spread_judge"].verdict is Verdict.skipped
    found = watched(silent, silent)
    assert "could not judge" in found["reward/spread_judge"].cause
    assert "judge judged nothing" in found["reward/flat_share"].cause
