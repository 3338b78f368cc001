"""Every method that chooses a prompt, on the same pictures and with the same measures.

One call is one seed with one number of training pictures: its own patients, its own reward network,
its own policies.  A method learns from the reward network's scores of training pictures (`LEARNED`)
or from their true masks (`TRUTH`); experiment 3b learns from scores and stops by the true masks of
validation pictures (`STOPPED`).  Each row of the table says which.  The true masks of test pictures
are read by the measures and by the oracle, which is an upper bound and not a method.  The best
fixed prompt, with which all others are compared, is chosen by the true masks: the stronger of the
two choices.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from core_rl.run.run_folder import cpu_seconds
from sa2va_rl.compare_config import CompareConfig
from sa2va_rl.data.features import Standardiser
from sa2va_rl.learning.policy_stages import PolicyInputs
from sa2va_rl.policy import baselines
from sa2va_rl.policy.saved import PromptPolicy
from sa2va_rl.prompts import BASE_PROMPT
from sa2va_rl.results.choice_metrics import ignores_picture, worth
from sa2va_rl.rewards.prompt_table import PromptTable

log = logging.getLogger(__name__)

Floats = NDArray[np.floating]
Choose = Callable[[PromptTable], baselines.Choices]

NOTHING, LEARNED, TRUTH = "nothing", "learned reward", "truth"
STOPPED = f"{LEARNED}, stop by {TRUTH}"
MEASURES = ("dice", "iou", "precision", "recall")
FIXED = "fixed"
TEST, SHIFTED = "test", "shifted"


METHODS_VERSION = 1  # raise when a row of the comparison changes


@dataclass(frozen=True)
class Arena:
    """What the methods of one seed and size share.

    Attributes:
        inputs: settings, training and validation pictures, masks, reward network and seed.
        config: of the comparison.
        train: every prompt measured and scored on the training pictures.
        held: the same on the test sets, by name: `TEST` and, for generated pictures, `SHIFTED`.
        standardiser: of the training pictures.
    """

    inputs: PolicyInputs
    config: CompareConfig
    train: PromptTable
    held: dict[str, PromptTable]
    standardiser: Standardiser

    @property
    def prompts(self) -> tuple[str, ...]:
        return self.inputs.settings.prompts

    @property
    def fixed(self) -> int:
        """The prompt with the best mean Dice on training pictures."""
        return int(self.train.dice_BK.mean(axis=0).argmax())


@dataclass(frozen=True)
class Found:
    """A method's results on held-out pictures, and its costs.

    Attributes:
        method: its name.
        told: what it learns from: `NOTHING`, `LEARNED`, `STOPPED` or `TRUTH`.
        calls: segmenter calls for a new picture.
        cpu_seconds: of its training, without the shared masks and reward network.
        measures: by test set and name (`MEASURES`), B each.
        choices: by test set, the index of each picture's prompt; None for methods without prompts.
    """

    method: str
    told: str
    calls: int
    cpu_seconds: float
    measures: dict[str, dict[str, Floats]]
    choices: dict[str, baselines.Choices] | None = None


@dataclass(frozen=True)
class Way:
    """A method that chooses prompts: `learn` trains it and returns its chooser."""

    method: str
    told: str
    learn: Callable[[], Choose]
    calls: int = 1


def choose_prompts(arena: Arena, policies: Mapping[str, tuple[PromptPolicy, float]]) -> list[Found]:
    """Train and measure every method that chooses a prompt; warn if a policy ignores the picture.

    Args:
        arena: of one seed and size.
        policies: by name, trained on the reward network's scores, with their CPU seconds.
    """
    found = [_random(arena)]
    for way in (*_fixed_ways(arena), *_bandits(arena)):
        began = cpu_seconds()
        choose = way.learn()
        spent = cpu_seconds() - began
        found.append(_chosen(arena, way.method, way.told, way.calls, spent, choose))
    for method, (policy, spent) in policies.items():
        one = _chosen(arena, method, LEARNED, 1, spent, _by(policy))
        found.append(one)
        assert one.choices is not None
        ignores_picture(method, one.choices[TEST], arena.held[TEST].dice_BK)
    return found


def _by(policy: PromptPolicy) -> Choose:
    return lambda table: policy.choose(table.features_BD)


def _chosen(
    arena: Arena, method: str, told: str, calls: int, spent: float, choose: Choose
) -> Found:
    """Measure the masks of the chosen prompts."""
    chosen = {name: choose(table) for name, table in arena.held.items()}
    measures = {
        name: {m: worth(table.measures_BK[m], chosen[name]) for m in MEASURES}
        for name, table in arena.held.items()
    }
    return Found(method, told, calls, spent, measures, chosen)


def _random(arena: Arena) -> Found:
    """A random prompt: the mean over all prompts instead of one sample."""
    measures = {
        name: {m: table.measures_BK[m].mean(axis=1) for m in MEASURES}
        for name, table in arena.held.items()
    }
    return Found("random", NOTHING, 1, 0.0, measures)


def _fixed_ways(arena: Arena) -> list[Way]:
    """One prompt for all pictures, and the two methods that need every prompt's mask."""

    def always(prompt: int) -> Choose:
        return lambda table: np.full(len(table.samples), prompt, dtype=np.int64)

    train, every = arena.train, len(arena.prompts)
    return [
        Way("base", NOTHING, lambda: always(BASE_PROMPT)),
        Way(FIXED, TRUTH, lambda: always(arena.fixed)),
        Way("fixed_learned", LEARNED, lambda: always(int(train.score_BK.mean(0).argmax()))),
        Way("oracle", TRUTH, lambda: lambda table: baselines.rerank(table.dice_BK), every),
        Way("rerank", LEARNED, lambda: lambda table: baselines.rerank(table.score_BK), every),
    ]


def _bandits(arena: Arena) -> list[Way]:
    """LinUCB and the regressions, on standardised features."""
    seen, train = arena.standardiser, arena.train
    features_BD = seen(train.features_BD)
    pulls, seed = arena.config.pulls, arena.inputs.seed

    def way(method: str, told: str, fit: Callable[..., baselines.Chooser]) -> Way:
        rewards_BK = train.dice_BK if told == TRUTH else train.score_BK

        def learn() -> Choose:
            choose = fit(features_BD, rewards_BK)
            return lambda table: choose(seen(table.features_BD))

        return Way(method, told, learn)

    return [
        way("linucb", LEARNED, partial(baselines.fit_linucb, pulls=pulls, seed=seed)),
        way("ridge", LEARNED, baselines.fit_ridge),
        way("forest", LEARNED, baselines.fit_forest),
        way("ridge_truth", TRUTH, baselines.fit_ridge),
        way("forest_truth", TRUTH, baselines.fit_forest),
    ]
