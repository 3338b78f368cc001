"""Every way to a better mask on the same pictures, told the same, measured the same.

One call here is one seed with one number of training pictures: its own patients, its own reward
network, its own policies.  A method learns from the reward network's scores of training pictures
(`LEARNED`) or from their true masks (`TRUTH`), and each row says which, as does experiment 3b's,
which learns from scores and stops by validation truths (`STOPPED`); test truths are read by the
oracle, which is a bound and no method, and by the measuring.  The best fixed prompt, which all
others are compared with, is chosen by the truth: the stronger choice of the two.
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
from sa2va_rl.data.files import Splits
from sa2va_rl.learning.stages import JudgedBy
from sa2va_rl.policy import baselines
from sa2va_rl.policy.saved import PromptPolicy
from sa2va_rl.prompts import BASE_PROMPT
from sa2va_rl.results import choice_metrics as choices
from sa2va_rl.rewards.prompt_table import PromptTable
from sa2va_rl.segmenters.mask_cache import MaskCache

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
        prompts: to choose among.
        config: of the comparison.
        seed: of the patients and of everything drawn.
        splits: pictures to learn from and to choose by; test is in `held`.
        judged: the reward network.
        masks: where masks come from.
        train: every prompt of the training pictures, measured and scored.
        held: the same of the test sets by name, `TEST` and maybe `SHIFTED`.
        standardiser: of the training pictures.
    """

    prompts: tuple[str, ...]
    config: CompareConfig
    seed: int
    splits: Splits
    judged: JudgedBy
    masks: MaskCache
    train: PromptTable
    held: dict[str, PromptTable]
    standardiser: Standardiser

    @property
    def fixed(self) -> int:
        """Return the prompt that is best on average on training pictures, by their truth."""
        return int(self.train.dice_BK.mean(axis=0).argmax())


@dataclass(frozen=True)
class Found:
    """What a method does on held-out pictures, and what it costs.

    Attributes:
        method: its name.
        told: what it learnt from: `NOTHING`, `LEARNED`, `STOPPED` or `TRUTH`.
        calls: of the segmenter, for each picture that it is used on.
        cpu_seconds: of its learning; masks and the reward network, which are shared, left out.
        measures: by test set and name (`MEASURES`), B each.
        choices: by test set, the place of each picture's prompt; None where it chooses no prompt.
    """

    method: str
    told: str
    calls: int
    cpu_seconds: float
    measures: dict[str, dict[str, Floats]]
    choices: dict[str, baselines.Choices] | None = None


@dataclass(frozen=True)
class Way:
    """A way to choose prompts: `learn` returns what chooses them."""

    method: str
    told: str
    learn: Callable[[], Choose]
    calls: int = 1


def choose_prompts(arena: Arena, policies: Mapping[str, tuple[PromptPolicy, float]]) -> list[Found]:
    """Measure all that choose a prompt; warn of policies that ignore the picture.

    Args:
        arena: of one seed and size.
        policies: by name, trained on the reward network's scores, with the seconds it took.
    """
    found = [_random(arena)]
    for way in (*_fixed_ways(arena), *_bandits(arena)):
        began = cpu_seconds()
        choose = way.learn()
        spent = cpu_seconds() - began
        found.append(_chosen(arena, way.method, way.told, way.calls, spent, choose))
    for method, (policy, spent) in policies.items():
        choose = _by(policy)
        found.append(_chosen(arena, method, LEARNED, 1, spent, choose))
        _warn_if_blind(method, choose, arena.held[TEST])
    return found


def _by(policy: PromptPolicy) -> Choose:
    return lambda table: policy.choose(table.features_BD)


def _chosen(
    arena: Arena, method: str, told: str, calls: int, spent: float, choose: Choose
) -> Found:
    """Measure the masks of chosen prompts."""
    chosen = {name: choose(table) for name, table in arena.held.items()}
    measures = {
        name: {m: choices.worth(table.measures_BK[m], chosen[name]) for m in MEASURES}
        for name, table in arena.held.items()
    }
    return Found(method, told, calls, spent, measures, chosen)


def _warn_if_blind(method: str, choose: Choose, table: PromptTable) -> None:
    def again(_: Floats) -> baselines.Choices:
        return choose(table)

    choices.ignores_picture(method, again, table.features_BD, table.dice_BK)


def _random(arena: Arena) -> Found:
    """All prompts equally likely: the mean over them, instead of one draw."""
    measures = {
        name: {m: table.measures_BK[m].mean(axis=1) for m in MEASURES}
        for name, table in arena.held.items()
    }
    return Found("random", NOTHING, 1, 0.0, measures)


def _fixed_ways(arena: Arena) -> list[Way]:
    """One prompt for all pictures, and the two that ask for every prompt's mask."""

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
    seen = arena.standardiser
    features_BD = seen(arena.train.features_BD)

    def by(fit: Callable[[], baselines.Chooser]) -> Callable[[], Choose]:
        def learn() -> Choose:
            choose = fit()
            return lambda table: choose(seen(table.features_BD))

        return learn

    ways = []
    for told, rewards_BK, end in (
        (LEARNED, arena.train.score_BK, ""),
        (TRUTH, arena.train.dice_BK, "_truth"),
    ):
        ways += [
            Way(f"ridge{end}", told, by(partial(baselines.fit_ridge, features_BD, rewards_BK))),
            Way(f"forest{end}", told, by(partial(baselines.fit_forest, features_BD, rewards_BK))),
        ]
    trials = partial(
        baselines.fit_linucb,
        features_BD,
        arena.train.score_BK,
        arena.config.pulls,
        seed=arena.seed,
    )
    return [Way("linucb", LEARNED, by(trials)), *ways]
