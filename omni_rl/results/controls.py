"""Controls of Stage 4: other training from the same start, scored on the same records.

    sft               supervision on the records' own right solutions
    sft_habit         supervision on the warm start's completions with habitual, often wrong answers
    shuffled_rewards  GRPO with the rewards of each group dealt out at random
    blank_media       GRPO with black frames and silence; the test shows the clips

The first two get the processor seconds that GRPO took, the others its steps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from core_rl.config import CurriculumConfig, PhaseConfig, PhaseKind, RewardConfig
from core_rl.hardware import prepare
from core_rl.objective.rewards import ShuffledReward, WeightedReward
from omni_rl.config import Blank, OmniDataConfig
from omni_rl.data.record import Record
from omni_rl.data.scenes import WEAK, retell
from omni_rl.data.splits import Splits, load_splits
from omni_rl.learning.fit_policy import Spent, Training, imitates, quiet
from omni_rl.learning.warm_start import learning_policy
from omni_rl.policy.rollout import greedy_texts
from omni_rl.rewards.answers import score_answer
from omni_rl.rewards.rules import judgeable
from omni_rl.rewards.scores import score_records
from omni_rl.settings import Settings

log = logging.getLogger(__name__)

NEEDS_SCENES = "sft_habit"  # makes completions from the scenes of generated clips


@dataclass(frozen=True)
class ControlResult:
    """A control of one seed.

    Attributes:
        scores: of the test records, a table of `omni_rl.rewards.scores.score_records`.
        numbers: `steps` and `cpu_seconds` of its training, and `label_accuracy`, the mean score in
            [0, 1] of the answers that supervision was given.
    """

    scores: pd.DataFrame
    numbers: dict[str, float] = field(default_factory=dict)


def run_control(
    settings: Settings, seed: int, folder: Path, name: str, budget: float
) -> ControlResult:
    """Train a control from the start of `seed` and score it on the same records.

    Args:
        settings: of the run.
        seed: as of the run that it stands beside.
        folder: of the seed; the control's own is inside.
        name: among `CONTROLS`.
        budget: processor seconds that learning by reward took.
    """
    log.info("control %s, seed %d", name, seed)
    settings = replace(settings, trainer=quiet(settings.trainer))
    prepare(settings.hardware, seed)
    splits = load_splits(
        settings.data_mix, settings.trainer, settings.paths, seed, imitates(settings.curriculum)
    )
    policy = learning_policy(settings, seed)
    training = Training(policy, settings, splits, folder / name, seed)
    numbers = CONTROLS[name](training, budget)
    policy.blank(settings.data_mix.blank)
    return ControlResult(
        score_records(splits.test, greedy_texts(policy, splits.test), seed), numbers
    )


def try_control(
    settings: Settings, seed: int, folder: Path, name: str, budget: float
) -> ControlResult | None:
    """Return the result of `run_control`, or None if it fails, so that the run keeps its own."""
    try:
        return run_control(settings, seed, folder, name, budget)
    except Exception:
        log.exception("control %s of seed %d failed", name, seed)
        return None


def check_controls(names: Sequence[str], data: OmniDataConfig) -> None:
    """Check at the start that the controls can be trained after the run.

    Raises:
        ValueError: a control is unknown or needs generated clips.
    """
    unknown = sorted(set(names) - set(CONTROLS))
    if unknown:
        raise ValueError(f"trainer.controls={unknown}: expected names among {sorted(CONTROLS)}")
    if NEEDS_SCENES in names and not data.generated:
        others = ",".join(name for name in CONTROLS if name != NEEDS_SCENES)
        raise ValueError(
            f"trainer.controls={list(names)}: {NEEDS_SCENES} needs generated clips, whose scenes "
            f"it tells anew; leave it out: trainer.controls=[{others}]"
        )


def check_solutions(names: Sequence[str], train: Sequence[Record]) -> None:
    """Raise ValueError if no training record has a solution for the control `sft`."""
    if "sft" in names and not any(record.solution for record in train):
        raise ValueError(
            f"trainer.controls={list(names)}: no training record has a solution that sft could "
            "imitate; leave sft out"
        )


def supervision(settings: Settings) -> Settings:
    """Return settings of supervised training that only its budget ends.

    Its number of steps is unknown, so the learning rate is constant: half of the warm start's, or
    that of the run for a checkpoint.
    """
    warm, trainer = settings.model.warm, settings.trainer
    if settings.model.path is None:
        trainer = replace(trainer, lr=0.5 * warm.lr, batch_size=warm.batch_size, accumulation=1)
    endless = replace(trainer, max_steps=None, schedule="constant", warmup=0.0)
    phase = PhaseConfig(kind=PhaseKind.rce, steps=100_000)
    return replace(settings, trainer=endless, curriculum=CurriculumConfig(phases=[phase]))


def _own_solutions(training: Training, budget: float) -> dict[str, float]:
    taught = [record for record in training.splits.train if record.solution]
    return _supervised(training, taught, lambda record: record, budget)


def _habit(training: Training, budget: float) -> dict[str, float]:
    rng = np.random.default_rng([training.seed, 8])
    return _supervised(
        training, training.splits.train, lambda record: retell(record, WEAK, rng), budget
    )


def _supervised(
    training: Training,
    records: Sequence[Record],
    tell: Callable[[Record], Record],
    budget: float,
) -> dict[str, float]:
    """Train on the solutions that `tell` gives the records, and score their answers."""
    scores: list[float] = []

    def teach(_: object, batch: Sequence[Record]) -> Sequence[Record]:
        told = [tell(record) for record in batch]
        judged = (score_answer(record, record.solution) for record in told)
        scores.extend(score for score in judged if score is not None)
        return told

    own = replace(
        training,
        settings=supervision(training.settings),
        splits=Splits(list(records), [], training.splits.test),
    )
    spent = own.by_example(teach, budget)
    own.keep_best()
    accuracy = float(np.mean(scores))
    log.info("%s: answers to imitate are right %.3f of the time", training.folder.name, accuracy)
    return _numbers(spent) | {"label_accuracy": accuracy}


def _shuffled_rewards(training: Training, budget: float) -> dict[str, float]:
    return _by_reward(training, ShuffledReward.from_config(_reward(training)))


def _blank_media(training: Training, budget: float) -> dict[str, float]:
    settings = training.settings
    training.policy.blank(Blank.all)
    blanked = replace(settings, data_mix=replace(settings.data_mix, blank=Blank.all))
    own = replace(training, settings=blanked)
    return _by_reward(own, WeightedReward.from_config(_reward(training)))


def _reward(training: Training) -> RewardConfig:
    return judgeable(training.settings.reward, training.splits.train)


def _by_reward(training: Training, reward: WeightedReward) -> dict[str, float]:
    spent = training.by_reward(reward)
    training.keep_best()
    return _numbers(spent)


def _numbers(spent: Spent) -> dict[str, float]:
    return {"steps": float(spent.steps), "cpu_seconds": spent.seconds}


CONTROLS: dict[str, Callable[[Training, float], dict[str, float]]] = {
    "sft": _own_solutions,
    "sft_habit": _habit,
    "shuffled_rewards": _shuffled_rewards,
    "blank_media": _blank_media,
}
