"""Baselines for the choice of a prompt.

Choosing one prompt for one picture is a contextual bandit, so its simplest learners are here: a
fixed prompt, LinUCB (Li et al., 2010), and regressions of every prompt's reward.  They learn from
rewards of training pictures and choose by features alone.  They learn from different amounts of
data: LinUCB from the rewards of the prompts it tried, the regressions from those of all prompts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Choices = NDArray[np.int64]
Chooser = Callable[[Floats], Choices]  # features BD -> indices of prompts B

RIDGE_WEIGHTS = (0.1, 1.0, 10.0, 100.0, 1000.0)


def fit_fixed(rewards_BK: Floats) -> Chooser:
    """Choose the prompt with the best mean reward for every picture."""
    best = int(rewards_BK.mean(axis=0).argmax())
    return lambda features_BD: np.full(len(features_BD), best, dtype=np.int64)


def fit_random(num_prompts: int, seed: int = 0) -> Chooser:
    """Choose a prompt uniformly at random for each picture."""
    rng = np.random.default_rng(seed)
    return lambda features_BD: rng.integers(num_prompts, size=len(features_BD))


def fit_ridge(features_BD: Floats, rewards_BK: Floats) -> Chooser:
    """Regress every prompt's reward linearly; the penalty is chosen by leave-one-out."""
    from sklearn.linear_model import RidgeCV

    _check(features_BD, rewards_BK)
    model = RidgeCV(alphas=RIDGE_WEIGHTS).fit(features_BD, rewards_BK)
    return lambda seen_BD: _best(model.predict(seen_BD))


def fit_forest(features_BD: Floats, rewards_BK: Floats, trees: int = 200, seed: int = 0) -> Chooser:
    """Regress every prompt's reward by one random forest."""
    from sklearn.ensemble import RandomForestRegressor

    _check(features_BD, rewards_BK)
    model = RandomForestRegressor(trees, min_samples_leaf=2, random_state=seed)
    model.fit(features_BD, rewards_BK)
    return lambda seen_BD: _best(model.predict(seen_BD))


def fit_linucb(
    features_BD: Floats, rewards_BK: Floats, pulls: int, alpha: float = 0.3, seed: int = 0
) -> Chooser:
    """Fit LinUCB with disjoint linear models (algorithm 1 of the paper) by trial and error.

    Args:
        features_BD: standardised features of training pictures.
        rewards_BK: only the tried prompt's reward is read.
        pulls: number of trials; pictures are drawn without replacement, pass after pass.
        alpha: width of the confidence bound during the trials.
        seed: of the order.

    Returns:
        A chooser by the mean reward alone, without the bound.
    """
    _check(features_BD, rewards_BK)
    rng = np.random.default_rng(seed)
    num_prompts = rewards_BK.shape[1]
    contexts_BC = _with_constant(features_BD)
    size = contexts_BC.shape[1]
    inverse_KCC = np.tile(np.eye(size), (num_prompts, 1, 1))
    summed_KC = np.zeros((num_prompts, size))
    weights_KC = np.zeros((num_prompts, size))
    order: list[int] = []
    for _ in range(pulls):
        order = order or rng.permutation(len(contexts_BC)).tolist()
        picture = order.pop()
        context_C = contexts_BC[picture]
        spread_KC = inverse_KCC @ context_C
        bound_K = weights_KC @ context_C + alpha * np.sqrt(spread_KC @ context_C)
        # Ties, such as all prompts at first, are broken at random.
        prompt = int(rng.choice(np.flatnonzero(bound_K >= bound_K.max() - 1e-12)))
        # Sherman-Morrison: the inverse after adding the outer product of the context.
        gain_C = spread_KC[prompt]
        inverse_KCC[prompt] -= np.outer(gain_C, gain_C) / (1 + gain_C @ context_C)
        summed_KC[prompt] += rewards_BK[picture, prompt] * context_C
        weights_KC[prompt] = inverse_KCC[prompt] @ summed_KC[prompt]
    return lambda seen_BD: _best(_with_constant(seen_BD) @ weights_KC.T)


def rerank(scores_BK: Floats) -> Choices:
    """Choose the prompt whose mask has the best score, at K segmenter calls a picture.

    With Dice as the score this is the oracle.
    """
    return _best(scores_BK)


def _best(values_BK: Floats) -> Choices:
    return values_BK.argmax(axis=1).astype(np.int64)


def _with_constant(features_BD: Floats) -> Floats:
    return np.hstack([features_BD, np.ones((len(features_BD), 1))])


def _check(features_BD: Floats, rewards_BK: Floats) -> None:
    if len(features_BD) != len(rewards_BK) or not len(features_BD):
        raise ValueError(
            f"features of {len(features_BD)} pictures, rewards of {len(rewards_BK)}: expected equal"
        )
    if not np.isfinite(rewards_BK).all():
        raise ValueError("rewards: expected finite numbers; give every training picture a reward")
