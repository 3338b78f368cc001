"""Metrics, intervals and comparisons of scored records, against hand-computed numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from core_rl.results.stats import is_mean, mean_interval
from omni_rl.results.metrics import before_after_table, compare, item_values, summarise
from omni_rl.rewards.scores import score_records
from tests.omni_rl.scored import RECORDS, TEXTS, record, table, told


def test_metrics_are_the_hand_computed_means() -> None:
    metrics = summarise(table())
    assert metrics["accuracy"] == pytest.approx((1 + 0 + 2 / 3 + 1 + 0.6 + 0) / 6)  # micro
    assert metrics["accuracy/category/Who/Which"] == 0
    assert metrics["accuracy/category/Emotion"] == pytest.approx(2 / 3)
    assert metrics["accuracy/problem_type/multiple choice"] == 0.5
    assert metrics["accuracy/source/social_iq"] == 0.5
    assert metrics["general_accuracy"] == pytest.approx(0.8)
    assert metrics["instruction_following"] == 0.5
    assert metrics["format"] == metrics["answered"] == pytest.approx(5 / 6)
    # 5 points; 2 points less a clause about the light, nothing left above .05; 2 points.
    earned = (25 / (25 + 4.7**2), 4 / (4 + 4.7**2) - 0.1, 4 / (4 + 4.7**2))
    assert metrics["people_focus"] == pytest.approx(sum(earned) / 6)
    assert metrics["grounded_focus"] == pytest.approx(4 / 6)  # over statements, not records
    assert metrics["grounded/gesture"] == 0.5
    assert metrics["grounded/colour"] == pytest.approx(2 / 3)
    assert metrics["grounded/count"] == 0.0
    assert "grounded/expression" not in metrics  # nothing was said of it
    assert (metrics["items"], metrics["unjudged"]) == (8, 0)
    assert all(isinstance(value, float) for value in metrics.values())
    unknown = {name for name, value in metrics.items() if not math.isfinite(value)}
    assert "accuracy/category/Emotion_low" in unknown  # one item tells nothing of others
    assert all(name.endswith(("_low", "_high")) for name in unknown)


def test_intervals_hold_their_mean() -> None:
    metrics = summarise(pd.concat([table(seed) for seed in range(3)]))
    for name in ("accuracy", "people_focus", "grounded_focus", "general_accuracy"):
        assert metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"]
    assert metrics["accuracy"] == pytest.approx(summarise(table())["accuracy"])


def test_the_items_of_a_ratio_average_to_the_ratio_in_each_seed() -> None:
    one, other = table(0), table(1, [TEXTS[1]] * 8)
    values = item_values(pd.concat([one, other]))["grounded_focus"]
    by_seed = values.groupby(level="seed").mean()
    assert by_seed.tolist() == pytest.approx([4 / 6, 1 / 6])


def test_a_comparison_is_paired() -> None:
    better = [TEXTS[0], TEXTS[0].replace(">A<", ">B<"), *TEXTS[2:]]
    change = compare(table(), table(texts=better))
    assert change["diff/accuracy"] == pytest.approx(1 / 6)
    # One of six items gains 1: the deviation is 1 / sqrt(6), its error 1 / 6.
    assert change["diff/accuracy_low"] == pytest.approx((1 - student.ppf(0.975, 5)) / 6)
    assert change["diff/instruction_following"] == 0
    assert change["diff/instruction_following_high"] == 0
    assert change["diff/grounded_focus"] == pytest.approx(7 / 7 - 4 / 6)
    assert set(means(compare(table(), table()))) == {0.0}


def asked(clips: list[str], answers: str, seed: int = 0) -> pd.DataFrame:
    """Multiple choice questions about clips, all with the answer A."""
    records = [
        replace(record(f"q{place}", "social_iq", "multiple choice", "A"), videos=(Path(clip),))
        for place, clip in enumerate(clips)
    ]
    return score_records(records, [told("x", answer) for answer in answers], seed)


def test_questions_about_one_clip_are_one_observation() -> None:
    rows = asked(["a", "a", "a", "b", "b", "b", "c", "c", "c"], "AAAAABBBB")
    found = summarise(rows)
    own = mean_interval([rows["accuracy"].tolist()], [rows["clip"].tolist()])
    apart = mean_interval([rows["accuracy"].tolist()])
    assert found["accuracy"] == pytest.approx(5 / 9)
    assert found["accuracy_low"] == own.low < apart.low
    # By hand: sums of deviations of the three clips, 2 degrees of freedom.
    error = math.sqrt(3 / 2 * ((12 / 9) ** 2 + (3 / 9) ** 2 + (15 / 9) ** 2)) / 9
    assert found["accuracy_low"] == pytest.approx(5 / 9 - student.ppf(0.975, 2) * error)
    better = compare(rows, asked(list(rows["clip"]), "A" * 9))
    assert better["diff/accuracy_low"] == pytest.approx(4 / 9 - student.ppf(0.975, 2) * error)


def test_seeds_on_one_test_file_are_told_from_seeds_with_clips_of_their_own() -> None:
    answers = ("AAAB", "AABB", "AAAA")
    same = pd.concat([asked(["a", "b", "c", "d"], said, n) for n, said in enumerate(answers)])
    other = pd.concat(
        [asked([f"{clip}{n}" for clip in "abcd"], said, n) for n, said in enumerate(answers)]
    )
    values = [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    shared = mean_interval(values, [list("abcd")] * 3, shared=True)
    assert summarise(same)["accuracy_low"] == pytest.approx(shared.low)
    assert summarise(other)["accuracy_low"] == pytest.approx(mean_interval(values).low)
    assert summarise(same)["accuracy_low"] < summarise(other)["accuracy_low"]


def test_every_figure_says_how_many_completions_it_is_over() -> None:
    found = summarise(table())
    assert found["accuracy_n"] == 6
    assert found["grounded_focus_n"] == 3  # of six: the others state nothing about people
    assert found["grounded/count_n"] == 1
    assert found["general_accuracy_n"] == 2
    text = before_after_table(found, found, {}, ["grounded_focus"])
    assert text.splitlines()[1].split() == ["grounded_focus", "0.667", "0.667", "3,", "3"]


def test_a_seed_that_says_nothing_keeps_the_numbers_of_the_others() -> None:
    silent = [told("x", "A")] * 8
    found = summarise(pd.concat([table(3), table(4, silent), table(5)]))
    assert {name for name in found if name.startswith("grounded_focus/seed")} == {
        "grounded_focus/seed0",
        "grounded_focus/seed2",
    }
    assert found["accuracy/seed1"] == summarise(table(4, silent))["accuracy"]


def means(metrics: dict[str, float]) -> list[float]:
    return [value for name, value in metrics.items() if is_mean(name)]


def test_the_order_of_rows_does_not_matter() -> None:
    shuffled = table().sample(frac=1, random_state=3)
    change = compare(table(), shuffled)
    assert np.allclose(means(change), 0)


def test_an_item_unjudged_on_one_side_is_left_out_of_both() -> None:
    after = table()
    after.loc[after["id"] == "s2", "accuracy"] = np.nan
    assert compare(table(), after)["diff/accuracy"] == 0.0
    assert summarise(after)["unjudged"] == pytest.approx(1 / 8)


def test_different_or_doubled_records_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1 records stand in one .* first seed=0 id='i2'"):
        compare(table(), table().iloc[:-1])
    with pytest.raises(ValueError, match="16 records stand in one"):
        compare(table(0), table(1))
    with pytest.raises(ValueError, match="8 records are scored twice, the first id='s1'"):
        summarise(pd.concat([table(), table()]))
    with pytest.raises(ValueError, match="1 completions for 8 records"):
        score_records(RECORDS, TEXTS[:1])


def test_the_printed_table_has_a_line_a_metric() -> None:
    before, after = summarise(table()), summarise(table())
    text = before_after_table(before, after, compare(table(), table()), ["accuracy", "format"])
    head, *lines = text.splitlines()
    assert head.split()[:6] == ["metric", "before", "after", "n,", "n", "change"]
    assert [line.split()[0] for line in lines] == ["accuracy", "format"]
    assert lines[0].split()[1:6] == ["0.544", "0.544", "6,", "6", "+0.000"]
    everything = before_after_table(before, after, compare(table(), table()))
    assert "grounded/colour" in everything
    assert "_low" not in everything
