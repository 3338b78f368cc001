"""One seed of Stage 4: start, measure, train, measure again, and the controls beside it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core_rl.config import CurriculumConfig, PhaseConfig, PhaseKind, TrainerConfig
from core_rl.files import write_text
from core_rl.hardware import is_main_process, prepare
from core_rl.objective.rewards import ShuffledReward, WeightedReward
from omni_rl.config import Blank
from omni_rl.data.record_files import Record
from omni_rl.data.scenes import WEAK, retell
from omni_rl.data.splits import Splits, load_splits
from omni_rl.learning.fit_policy import (
    CpuBudget,
    check_loss,
    imitates,
    learn_by_example,
    learn_by_reward,
    quiet,
)
from omni_rl.learning.warm_start import check_start, learning_policy
from omni_rl.policy.policy import OmniPolicy, known_checkpoint
from omni_rl.policy.rollout import describe_first, greedy_texts
from omni_rl.rewards.scores import majority_texts, score_records
from omni_rl.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SeedResult:
    """Tables of scored test records (`omni_rl.rewards.scores.score_records`) of one seed.

    Attributes:
        before: the start model.
        after: the trained one.
        beside: `blind` (the start without media) and `majority` (no model).
        numbers: of the start and the run; `learn_cpu_seconds` is what controls get, too, and counts
            the part before a resume.
        records: the test records, for the report.
    """

    before: pd.DataFrame
    after: pd.DataFrame
    beside: dict[str, pd.DataFrame] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)


def run_seed(settings: Settings, seed: int, folder: Path) -> SeedResult:
    """Run one seed from its start model to its scored test records.

    Args:
        settings: of the run.
        seed: of scenes, warm start (where one is made), draws and order.
        folder: checkpoints, samples, logs and scores (`before.csv`, `after.csv`) of this seed.

    Raises:
        ValueError: a setting, record or start model with which the run could not learn.
    """
    reward = WeightedReward.from_config(settings.reward)  # refused before anything is spent
    prepare(settings.hardware, seed)
    splits = load_splits(
        settings.data_mix, settings.trainer, settings.paths, seed, imitates(settings.curriculum)
    )
    policy = learning_policy(settings, seed)
    numbers: dict[str, float] = {}
    if settings.model.path is None and settings.model.warm_start != "none":
        # What the start can perceive, whatever it is denied from then on.
        numbers |= check_start(policy.blank(Blank.none), settings, seed)
        policy.blank(settings.data_mix.blank)
    log.info("one sample as the model sees it\n%s", describe_first(policy, splits.train[0]))
    test = splits.test
    before = score_records(test, greedy_texts(policy, test), seed)
    _keep(before, folder / "before.csv")
    beside = {"majority": score_records(test, majority_texts(splits.train, test), seed)}
    blind = greedy_texts(policy.blank(Blank.all), test)
    beside["blind"] = score_records(test, blind, seed)
    policy.blank(settings.data_mix.blank)

    numbers["learn_cpu_seconds"] = learn_by_reward(
        policy, splits.train, splits.val, settings, reward, folder, seed
    )
    after = score_records(test, greedy_texts(policy, test), seed)
    _keep(after, folder / "after.csv")
    return SeedResult(before, after, beside, numbers, test)


def _keep(scores: pd.DataFrame, file: Path) -> None:
    """Write scores at once: what fails later must not cost them."""
    if is_main_process():
        write_text(file, scores.to_csv(index=False))


def check_settings(settings: Settings) -> None:
    """Refuse at the start what would stop the run after it has trained.

    Raises:
        FileNotFoundError: `model.path` names no checkpoint.
        ValueError: a control is unknown or needs generated clips, or the loss does not fit.
    """
    if settings.model.path is not None:
        known_checkpoint(settings.model.path, "model.path")
    controls = settings.trainer.controls
    unknown = sorted(set(controls) - set(CONTROLS))
    if unknown:
        raise ValueError(f"trainer.controls={unknown}: expected names among {sorted(CONTROLS)}")
    if "sft" in controls and not settings.data_mix.generated:
        others = ",".join(name for name in CONTROLS if name != "sft")
        raise ValueError(
            f"trainer.controls={list(controls)}: sft needs generated clips, whose scenes it tells "
            f"anew; leave it out: trainer.controls=[{others}]"
        )
    check_loss(settings.loss)


def run_control(
    settings: Settings, seed: int, folder: Path, name: str, budget: float
) -> pd.DataFrame:
    """Train a control from the start of `seed` and score it on the same records.

    Args:
        settings: of the run.
        seed: as `run_seed` had.
        folder: of the seed; the control's own is inside.
        name: among `CONTROLS`.
        budget: processor seconds that `run_seed` spent on learning.
    """
    log.info("control %s, seed %d", name, seed)
    settings = replace(settings, trainer=quiet(settings.trainer))
    prepare(settings.hardware, seed)
    splits = load_splits(
        settings.data_mix, settings.trainer, settings.paths, seed, imitates(settings.curriculum)
    )
    policy = learning_policy(settings, seed)
    CONTROLS[name](policy, settings, splits, seed, folder / name, budget)
    policy.blank(settings.data_mix.blank)
    return score_records(splits.test, greedy_texts(policy, splits.test), seed)


def try_control(*args: Any) -> pd.DataFrame | None:
    """Do `run_control`; None where it fails: a comparison must not cost a run its numbers."""
    try:
        return run_control(*args)
    except Exception:
        log.exception("control %s of seed %d failed", args[3], args[1])
        return None


def supervision(settings: Settings) -> tuple[TrainerConfig, CurriculumConfig]:
    """Settings of supervised training that goes on until its budget stops it.

    Nobody knows its steps beforehand.  A schedule in shares of them would never leave its ramp, so
    the rate is half the warm start's from the first step to the last.
    """
    warm = settings.model.warm
    trainer = replace(
        settings.trainer,
        lr=0.5 * warm.lr,
        batch_size=warm.batch_size,
        accumulation=1,
        max_steps=None,
        schedule="constant",
        warmup=0.0,
        val_every=10**9,
    )
    return trainer, CurriculumConfig(phases=[PhaseConfig(kind=PhaseKind.rce, steps=100_000)])


def _more_supervision(
    policy: OmniPolicy, settings: Settings, splits: Splits, seed: int, folder: Path, budget: float
) -> None:
    """Go on with the warm start's own supervised training for the same processor time."""
    rng = np.random.default_rng([seed, 8])
    trainer, curriculum = supervision(settings)

    def teach(_: object, records: Sequence[Record]) -> Sequence[Record]:
        return [retell(record, WEAK, rng) for record in records]

    learn_by_example(
        policy,
        splits.train,
        [],
        settings,
        curriculum,
        trainer,
        folder,
        seed,
        teach,
        CpuBudget(budget),
    )


def _shuffled_rewards(
    policy: OmniPolicy, settings: Settings, splits: Splits, seed: int, folder: Path, budget: float
) -> None:
    reward = ShuffledReward.from_config(settings.reward)
    learn_by_reward(policy, splits.train, splits.val, settings, reward, folder, seed)


def _blank_media(
    policy: OmniPolicy, settings: Settings, splits: Splits, seed: int, folder: Path, budget: float
) -> None:
    """Learn without seeing or hearing; the test then shows the clips."""
    policy.blank(Blank.all)
    settings = replace(settings, data_mix=replace(settings.data_mix, blank=Blank.all))
    reward = WeightedReward.from_config(settings.reward)
    learn_by_reward(policy, splits.train, splits.val, settings, reward, folder, seed)


CONTROLS: dict[str, Callable[[OmniPolicy, Settings, Splits, int, Path, float], None]] = {
    "sft": _more_supervision,
    "shuffled_rewards": _shuffled_rewards,
    "blank_media": _blank_media,
}
