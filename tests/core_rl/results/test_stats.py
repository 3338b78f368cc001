"""t intervals: closed forms, what counts as one observation, pairing and ratios."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from core_rl.results.stats import (
    Floats,
    Interval,
    as_metrics,
    is_mean,
    mean_interval,
    paired_interval,
    ratio_interval,
)

RNG = np.random.default_rng(0)


def width(found: Interval) -> float:
    return found.high - found.low


def normals(*shape: int) -> list[Floats]:
    return list(RNG.normal(size=shape))


def test_the_mean_is_over_seeds_of_means_over_items() -> None:
    found = mean_interval([[0.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    assert found.mean == 0.75
    assert found.per_seed == (0.5, 1.0)


def test_a_constant_has_no_width() -> None:
    assert mean_interval([[0.5] * 7] * 3) == Interval(0.5, 0.5, 0.5, (0.5, 0.5, 0.5))


def test_one_seed_gives_the_t_interval_over_its_items() -> None:
    (values,) = normals(1, 30)
    found = mean_interval([values])
    right = stats.ttest_1samp(values, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((right.low, right.high))


def test_seeds_with_their_own_data_give_the_t_interval_over_seed_means() -> None:
    values = [items + shift for items, shift in zip(normals(3, 200), (-1, 0, 1), strict=True)]
    found = mean_interval(values)
    right = stats.ttest_1samp([items.mean() for items in values], 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((right.low, right.high))


def test_seeds_on_one_file_add_the_chance_of_its_items() -> None:
    values = normals(3, 50)
    over_seeds = width(mean_interval(values)) / 2
    # Items averaged over seeds, about each seed's mean.
    over_items = width(mean_interval([np.mean([one - one.mean() for one in values], axis=0)])) / 2
    both = width(mean_interval(values, shared=True)) / 2
    assert both == pytest.approx(math.hypot(over_seeds, over_items))


def test_the_same_answers_again_are_no_further_evidence() -> None:
    values = normals(1, 50)
    alone, copies = mean_interval(values), mean_interval(values * 5, shared=True)
    assert (copies.low, copies.high) == pytest.approx((alone.low, alone.high))


def test_copies_in_one_group_count_once() -> None:
    (values,) = normals(1, 12)
    groups = [np.repeat(np.arange(12), 4).tolist()]
    alone, found = mean_interval([values]), mean_interval([np.repeat(values, 4)], groups)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))


def test_groups_of_different_size_weigh_by_their_items() -> None:
    found = mean_interval([[1.0, 1.0, 1.0, 0.0]], [["a", "a", "a", "b"]])
    # Group sums about the mean .75: +.75 and -.75; variance 2 / 1 * (.75^2 + .75^2) / 4^2.
    half = stats.t.ppf(0.975, 1) * math.sqrt(2 * 2 * 0.75**2) / 4
    assert (found.mean, found.high) == pytest.approx((0.75, 0.75 + half))


def test_one_group_of_one_seed_says_nothing_of_others() -> None:
    found = paired_interval([[1.0, 0.0]], [[0.0, 0.0]], [["a", "a"]])
    assert (found.mean, found.low, found.high) == (0.5, -math.inf, math.inf)
    assert found.detectable == math.inf


def test_groups_join_items_that_seeds_on_one_file_have_in_common() -> None:
    values = normals(1, 4)[0]
    one = mean_interval([values] * 2, shared=True)
    found = mean_interval([values, values[::-1]], [list("abcd"), list("dcba")], shared=True)
    assert (found.low, found.high) == pytest.approx((one.low, one.high))


def test_pairing_removes_what_items_share() -> None:
    difficulty = RNG.normal(size=(2, 300))
    before = difficulty + 0.01 * RNG.normal(size=(2, 300))
    paired = paired_interval(list(difficulty + 0.1), list(before), shared=True)
    assert paired.mean == pytest.approx(0.1, abs=0.01)
    assert width(paired) < 0.1 * width(mean_interval(list(before), shared=True))


def test_booleans_are_answers_right_or_wrong() -> None:
    after, before = np.array([True, True, False]), np.array([False, True, False])
    assert paired_interval([after], [before]).mean == pytest.approx(1 / 3)


def test_a_ratio_of_means_has_the_interval_of_the_delta_method() -> None:
    bottoms = [items + 5 for items in normals(1, 400)]
    tops = [
        0.5 * items + 0.1 * noise for items, noise in zip(bottoms, normals(1, 400), strict=True)
    ]
    found = ratio_interval(tops, bottoms)
    assert found.mean == pytest.approx(tops[0].mean() / bottoms[0].mean())
    residuals = tops[0] - found.mean * bottoms[0]
    error = residuals.std(ddof=1) / math.sqrt(400) / bottoms[0].mean()
    assert width(found) == pytest.approx(2 * stats.t.ppf(0.975, 399) * error)


def test_each_seed_has_its_own_ratio() -> None:
    found = ratio_interval([[1.0, 1.0], [3.0, 1.0]], [[2.0, 2.0], [4.0, 4.0]])
    assert found.per_seed == (0.5, 0.5)
    nothing = ratio_interval([[1.0]], [[0.0]])
    assert math.isnan(nothing.mean) and math.isnan(nothing.low)


def test_metrics_hold_the_ends_the_seeds_and_the_detectable_difference() -> None:
    found = as_metrics("diff/accuracy", paired_interval([[1.0], [0.5]], [[0.0], [0.0]]))
    assert found["diff/accuracy"] == 0.75
    assert found["diff/accuracy/seed0"] == 1.0 and found["diff/accuracy/seed1"] == 0.5
    ends = {"diff/accuracy_low", "diff/accuracy_high", "diff/accuracy_detectable"}
    assert ends < found.keys()
    assert as_metrics("a", mean_interval([[1.0, 1.0]])) == {"a": 1.0, "a_low": 1.0, "a_high": 1.0}


def test_a_mean_is_told_from_what_stands_beside_it() -> None:
    beside = ("_low", "_high", "_detectable", "_n", "/seed12")
    assert is_mean("diff/accuracy") and is_mean("accuracy/source/seeds")
    assert not any(is_mean(f"diff/accuracy{end}") for end in beside)


@pytest.mark.parametrize(
    ("after", "before", "message"),
    [
        ([[1.0, 2.0]], [[1.0]], "differ in number"),
        ([[1.0], [2.0]], [[1.0, 2.0]], "differ in number"),
        ([], [], "at least one item"),
        ([[]], [[]], "at least one item"),
        ([[float("nan")]], [[1.0]], "after: expected finite"),
    ],
)
def test_unfit_items_are_refused(
    after: list[list[float]], before: list[list[float]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        paired_interval(after, before)


def test_groups_have_to_be_of_the_items() -> None:
    with pytest.raises(ValueError, match=r"groups: \[2\] given for \[3\] items"):
        mean_interval([[1.0, 2.0, 3.0]], [["a", "b"]])
    with pytest.raises(ValueError, match="on one file: name each item's group"):
        mean_interval([[1.0, 2.0], [3.0]], shared=True)
