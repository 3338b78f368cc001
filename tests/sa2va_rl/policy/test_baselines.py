"""Baselines on bandits that can be solved by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sa2va_rl.policy.baselines import (
    Chooser,
    fit_fixed,
    fit_forest,
    fit_linucb,
    fit_random,
    fit_ridge,
    rerank,
)


def linear_bandit(count: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Four prompts, two features: each prompt is best in one direction."""
    rng = np.random.default_rng(seed)
    features_BD = rng.normal(size=(count, 2))
    weights_DK = np.array([[0.3, -0.3, 0, 0], [0, 0, 0.3, -0.3]])
    return features_BD, 0.5 + features_BD @ weights_DK + rng.normal(0, 0.02, (count, 4))


def hits(choose: Chooser) -> float:
    features_BD, rewards_BK = linear_bandit(300, seed=1)
    return float((choose(features_BD) == rewards_BK.argmax(axis=1)).mean())


def test_the_fixed_prompt_is_the_best_on_average() -> None:
    choose = fit_fixed(np.array([[0.9, 0.5], [0.0, 0.5]]))
    assert choose(np.zeros((3, 2))).tolist() == [1, 1, 1]


def test_random_draws_all_prompts_alike() -> None:
    counts = np.bincount(fit_random(4)(np.zeros((4000, 2))), minlength=4)
    assert counts.min() > 900


def test_ridge_solves_a_linear_bandit() -> None:
    assert hits(fit_ridge(*linear_bandit())) > 0.9  # noise decides the closest calls


def test_a_forest_comes_near() -> None:
    assert hits(fit_forest(*linear_bandit(), trees=30)) > 0.85


def test_linucb_learns_from_the_prompts_it_tried() -> None:
    assert hits(fit_linucb(*linear_bandit(), pulls=1500)) > 0.9


def test_linucb_reads_no_other_reward() -> None:
    """One trial each: the rewards of the untried prompts may be anything."""
    features_BD, rewards_BK = linear_bandit(1)
    plain = fit_linucb(features_BD, rewards_BK, pulls=1)
    tried = int(plain(features_BD)[0])
    other_BK = np.where(np.arange(4) == tried, rewards_BK, 99.0)
    np.testing.assert_array_equal(
        fit_linucb(features_BD, other_BK, pulls=1)(features_BD), plain(features_BD)
    )


def test_reranking_by_the_truth_is_the_oracle() -> None:
    assert rerank(np.array([[0.1, 0.9], [0.7, 0.2]])).tolist() == [1, 0]


def test_rewards_that_cannot_teach() -> None:
    features_BD, rewards_BK = linear_bandit(5)
    with pytest.raises(ValueError, match="features of 5 pictures, rewards of 4"):
        fit_ridge(features_BD, rewards_BK[:4])
    with pytest.raises(ValueError, match="expected finite numbers"):
        fit_linucb(features_BD, np.full_like(rewards_BK, np.nan), pulls=3)
