"""Measures of a judge, against closed forms and planted faults."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sa2va_rl.rewards.reward_metrics import (
    calibration_error,
    judge_metrics,
    probe_table,
    tiers,
    within_image_spearman,
)


def labels(pictures: int = 30, prompts: int = 11, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 0.9, (pictures, prompts))


def test_a_perfect_judge() -> None:
    found = judge_metrics(labels(), labels())
    assert found["within_image_spearman"] == pytest.approx(1, abs=0.02)  # but for near-ties
    assert found["ranked_images"] == 30
    for name in ("r2", "pearson", "spearman"):
        assert found[name] == pytest.approx(1)
    for name in ("mae", "calibration_error", "argmax_regret"):
        assert found[name] == pytest.approx(0)


def test_a_judge_of_pictures_alone_is_found_out() -> None:
    """Scores that know how easy a picture is, but not which mask is good."""
    rng = np.random.default_rng(0)
    ease_B1 = rng.uniform(0.2, 0.8, (200, 1))
    labels_BK = ease_B1 + rng.normal(0, 0.03, (200, 11))
    found = judge_metrics(ease_B1 + rng.normal(0, 0.03, (200, 11)), labels_BK)
    assert found["pearson"] > 0.9
    assert abs(found["within_image_spearman"]) < 0.1
    assert found["argmax_regret"] > 0.03


def test_a_constant_judge_orders_nothing() -> None:
    found = judge_metrics(np.full((30, 11), 0.5), labels())
    assert found["within_image_spearman"] == 0
    assert np.isnan(found["pearson"])
    assert np.isnan(found["spearman"])


def test_overall_numbers_agree_with_scipy() -> None:
    scores, truth = labels(seed=1), labels(seed=2)
    found = judge_metrics(scores, truth)
    assert found["spearman"] == pytest.approx(stats.spearmanr(scores.ravel(), truth.ravel())[0])
    assert found["pearson"] == pytest.approx(stats.pearsonr(scores.ravel(), truth.ravel())[0])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.5, 0.5, 0.5], [0, 0, 0]),
        ([0.500, 0.504, 0.505], [0, 0, 1]),  # .005 above the tier's worst is better
        ([0.9, 0.1, 0.103, 0.5], [2, 0, 0, 1]),
        ([0.0, 0.003, 0.006, 0.009], [0, 0, 1, 1]),  # chains do not grow
    ],
)
def test_tiers(values: list[float], expected: list[int]) -> None:
    assert tiers(np.array(values)).tolist() == expected


def test_order_inside_ties_does_not_matter() -> None:
    truth = np.array([[0.1, 0.500, 0.502, 0.9]])
    for scores in ([0.1, 0.3, 0.2, 0.9], [0.1, 0.2, 0.3, 0.9]):
        found, count = within_image_spearman(np.array([scores]), truth)
        assert (found, count) == (pytest.approx(np.sqrt(0.9)), 1)


def test_pictures_of_equal_labels_do_not_count() -> None:
    truth = np.array([[0.5, 0.501, 0.502], [0.1, 0.2, 0.3]])
    found, count = within_image_spearman(np.array([[3.0, 2, 1], [1, 2, 3]]), truth)
    assert (found, count) == (pytest.approx(1), 1)
    assert np.isnan(within_image_spearman(truth[:1], truth[:1])[0])


def test_regret_by_hand() -> None:
    truth = np.array([[0.2, 0.8], [0.6, 0.5]])
    assert judge_metrics(np.array([[0.9, 0.1], [0.9, 0.1]]), truth)["argmax_regret"] == (
        pytest.approx((0.6 + 0) / 2)
    )


def test_calibration_by_hand() -> None:
    scores, truth = np.array([0.12, 0.18, 0.95, 1.0]), np.array([0.2, 0.3, 0.95, 0.9])
    # Bin 1: (-.08 - .12); bin 9: (0 + .1); four pairs.
    assert calibration_error(scores, truth) == pytest.approx((0.2 + 0.1) / 4)


@given(seed=st.integers(0, 100), power=st.floats(0.2, 5))
def test_the_order_alone_decides_the_rank_correlation(seed: int, power: float) -> None:
    scores, truth = labels(4, seed=seed), labels(4, seed=seed + 1)
    before, after = (within_image_spearman(s, truth)[0] for s in (scores, scores**power))
    assert before == pytest.approx(after)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="expected equal"):
        judge_metrics(labels(3), labels(4))


def test_probe_table() -> None:
    table = probe_table([0.9, 0.1, 0.7], [1.0, 0.0, 1.0], ["truth", "empty", "truth"])
    assert table["truth"] == (pytest.approx(0.8), pytest.approx(1.0))
    assert table["empty"] == (pytest.approx(0.1), pytest.approx(0.0))
