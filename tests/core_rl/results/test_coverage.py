"""How often 95 % intervals hold the true value, and how often they see a detectable difference.

Simulated answers are right or wrong.  Questions about one clip share its difficulty, a seed is a
training run that is better or worse as a whole and on single clips.  The true value is that of
new seeds and new clips, by quadrature.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from core_rl.results.stats import (
    Floats,
    Interval,
    mean_interval,
    paired_interval,
    ratio_interval,
)

TRIALS = 1000
CLIPS = 40
# Standard deviations, in logits.
CLIP, QUESTION, SEED, SEED_ON_CLIP = 1.0, 0.7, 0.4, 0.5
BEFORE, AFTER = 0.2, 1.2  # mean logits
CASES = [
    pytest.param(seeds, questions, shared, id=f"{seeds}-seeds-{questions}-a-clip-{name}")
    for seeds in (3, 5, 10)
    for questions in (1, 4)
    for shared, name in ((False, "own-data"), (True, "one-file"))
]


def answers(
    rng: np.random.Generator, seeds: int, questions: int, shared: bool, seed_spread: float = 1.0
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], list[list[int]]]:
    """Draw right and wrong answers before and after training, [seeds, items], and their clips."""
    drawn = 1 if shared else seeds
    clip = CLIP * rng.normal(size=(drawn, CLIPS, 1))
    item = clip + QUESTION * rng.normal(size=(drawn, CLIPS, questions))
    run = SEED * rng.normal(size=(seeds, 1, 1)) + SEED_ON_CLIP * rng.normal(size=(seeds, CLIPS, 1))
    shape = (seeds, CLIPS, questions)
    before = rng.random(shape) < expit(BEFORE + item)
    after = rng.random(shape) < expit(AFTER + item + seed_spread * run)
    clips = np.repeat(np.arange(CLIPS), questions).tolist()
    return before.reshape(seeds, -1), after.reshape(seeds, -1), [clips] * seeds


def share_right(mean: float, *spreads: float) -> float:
    """Expected share of right answers at a mean logit with normal spreads."""
    places, weights = np.polynomial.hermite_e.hermegauss(80)
    logits = mean + np.sqrt(np.square(spreads).sum()) * places
    return float(weights @ expit(logits) / weights.sum())


def truths(seed_spread: float = 1.0) -> dict[str, float]:
    before = share_right(BEFORE, CLIP, QUESTION)
    after = share_right(AFTER, CLIP, QUESTION, seed_spread * SEED, seed_spread * SEED_ON_CLIP)
    return {
        "mean": after,
        "difference": after - before,
        "ratio": (after - before) / (1 - before),
    }


def intervals(
    before: NDArray[np.bool_], after: NDArray[np.bool_], clips: list[list[int]], shared: bool
) -> dict[str, Interval]:
    olds, news = list(before.astype(float)), list(after.astype(float))
    gains: list[Floats] = [new - old for new, old in zip(news, olds, strict=True)]
    left: list[Floats] = [1 - old for old in olds]
    return {
        "mean": mean_interval(news, clips, shared),
        "difference": paired_interval(news, olds, clips, shared),
        "ratio": ratio_interval(gains, left, clips, shared),
    }


def coverage(
    seeds: int, questions: int, shared: bool, seed_spread: float = 1.0
) -> dict[str, float]:
    rng = np.random.default_rng([seeds, questions, shared])
    true = truths(seed_spread)
    hits = dict.fromkeys(true, 0)
    for _ in range(TRIALS):
        found = intervals(*answers(rng, seeds, questions, shared, seed_spread), shared)
        for name, value in true.items():
            hits[name] += found[name].low <= value <= found[name].high
    return {name: count / TRIALS for name, count in hits.items()}


@pytest.mark.parametrize(("seeds", "questions", "shared"), CASES)
def test_intervals_over_seeds_hold_the_value_of_new_seeds_and_clips(
    seeds: int, questions: int, shared: bool
) -> None:
    for name, share in coverage(seeds, questions, shared).items():
        assert 0.93 <= share < 1, name


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("questions", [1, 4])
def test_intervals_of_one_seed_hold_the_value_of_new_clips(questions: int, shared: bool) -> None:
    """One seed cannot show how seeds differ: here they do not."""
    for name, share in coverage(1, questions, shared, seed_spread=0.0).items():
        assert 0.93 <= share < 1, name


@pytest.mark.parametrize("seeds", [3, 10])
def test_a_detectable_difference_is_seen_in_four_of_five_experiments(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    nothing = np.zeros((seeds, 2))

    def gains(shift: float) -> Floats:
        return (shift + rng.normal(size=(seeds, 1))).repeat(2, axis=1)

    squares = [
        float(paired_interval(list(gains(0.0)), list(nothing)).detectable or 0) ** 2
        for _ in range(TRIALS)
    ]
    shift = float(np.sqrt(np.mean(squares)))  # variances are estimated without bias
    seen = [paired_interval(list(gains(shift)), list(nothing)).low > 0 for _ in range(TRIALS)]
    assert np.mean(seen) == pytest.approx(0.8, abs=0.04)
