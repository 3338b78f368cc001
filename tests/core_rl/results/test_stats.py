"""Bootstrap intervals: known widths, pairing, seeds, and their coverage."""

from __future__ import annotations

import numpy as np
import pytest

from core_rl.results.stats import Interval, bootstrap_mean, paired_bootstrap

RNG = np.random.default_rng(0)


def test_the_mean_is_over_seeds_of_means_over_items() -> None:
    assert bootstrap_mean([[0.0, 1.0], [1.0, 1.0, 1.0, 1.0]], resamples=200).mean == 0.75


def test_a_constant_has_no_width() -> None:
    interval = bootstrap_mean([[0.5] * 7] * 3)
    assert interval == Interval(0.5, 0.5, 0.5)


def test_the_width_over_items_is_that_of_the_normal_approximation() -> None:
    values = RNG.normal(size=400)
    interval = bootstrap_mean(values)
    error = values.std() / np.sqrt(values.size)
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_seeds_that_differ_widen_the_interval() -> None:
    alike = [RNG.normal(size=200) for _ in range(3)]
    apart = [items + shift for items, shift in zip(alike, (-1.0, 0.0, 1.0), strict=True)]
    narrow, wide = bootstrap_mean(alike), bootstrap_mean(apart)
    # Three seeds 1 apart: all three draws hit an end seed with probability 1/27 > 2.5 %.
    assert wide.high - wide.low > 1.8
    assert wide.high - wide.low > 4 * (narrow.high - narrow.low)


def test_pairing_removes_what_items_share() -> None:
    difficulty = RNG.normal(size=(2, 300))
    before = difficulty + 0.01 * RNG.normal(size=(2, 300))
    paired = paired_bootstrap(difficulty + 0.1, before)
    assert paired.mean == pytest.approx(0.1, abs=0.01)
    assert 0.09 < paired.low < paired.high < 0.11
    assert bootstrap_mean(before).high - bootstrap_mean(before).low > 0.1


def test_the_same_seed_gives_the_same_interval() -> None:
    values = RNG.normal(size=50)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


def test_booleans_are_answers_right_or_wrong() -> None:
    after, before = np.array([True, True, False]), np.array([False, True, False])
    assert paired_bootstrap(after, before).mean == pytest.approx(1 / 3)


@pytest.mark.parametrize("shape", [(120,), (4, 60)], ids=["items", "seeds and items"])
def test_coverage_is_near_what_is_promised(shape: tuple[int, ...]) -> None:
    # True mean 0; items and, in the second case, seeds vary.  Four seeds give too narrow an
    # interval (see the module's header), hence the lower bar.
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        values = rng.normal(size=shape)
        if len(shape) == 2:
            values = values + 0.3 * rng.normal(size=(shape[0], 1))
        interval = bootstrap_mean(values, resamples=400, seed=trial)
        hits += interval.low <= 0 <= interval.high
    assert hits / 200 >= (0.90 if len(shape) == 1 else 0.75)
    assert hits < 200


@pytest.mark.parametrize(
    ("after", "before", "message"),
    [
        ([1.0, 2.0], [1.0], "differ in number"),
        ([[1.0], [2.0]], [1.0, 2.0], "differ in number"),
        ([], [], "at least one item"),
        ([float("nan")], [1.0], "after: expected finite"),
    ],
)
def test_unfit_items_are_refused(after: list[float], before: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(after, before)


def test_many_items_are_resampled_in_pieces() -> None:
    values = RNG.normal(size=30_000)
    interval = bootstrap_mean(values, resamples=150)
    assert interval.low < interval.mean < interval.high


def test_groups_of_one_item_change_nothing() -> None:
    values = [np.random.default_rng(seed).normal(size=17) for seed in range(3)]
    alone = [list(range(17))] * 3
    assert bootstrap_mean(values, 500, groups=alone) == bootstrap_mean(values, 500)


def test_copies_in_one_group_count_once() -> None:
    """Groups of the same size are drawn as their means are."""
    values = np.random.default_rng(0).normal(size=12)
    copies = [np.repeat(values, 4)]
    groups = [np.repeat(np.arange(12), 4).tolist()]
    found, alone = bootstrap_mean(copies, 500, groups=groups), bootstrap_mean(values, 500)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))


def test_groups_have_to_be_of_the_items() -> None:
    with pytest.raises(ValueError, match="groups: 2 given for 3 items"):
        bootstrap_mean([1.0, 2.0, 3.0], groups=[["a", "b"]])
