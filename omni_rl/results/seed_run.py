"""One seed of Stage 4: start, measure, train, measure again."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from core_rl.files import write_text
from core_rl.hardware import is_main_process, prepare
from core_rl.objective.rewards import WeightedReward
from core_rl.run.callbacks import validated
from omni_rl.config import Blank
from omni_rl.data.record import Record
from omni_rl.data.splits import load_splits
from omni_rl.learning.fit_policy import Training, check_batch, check_loss, imitates
from omni_rl.learning.usable import askable_splits
from omni_rl.learning.warm_start import check_start, learning_policy
from omni_rl.policy.policy import known_checkpoint
from omni_rl.policy.rollout import describe_first, greedy_texts
from omni_rl.results.controls import check_controls, check_solutions
from omni_rl.rewards.rules import judgeable
from omni_rl.rewards.scores import majority_texts, score_records
from omni_rl.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SeedResult:
    """Tables of scored test records (`omni_rl.rewards.scores.score_records`) of one seed.

    Attributes:
        before: the start model.
        after: the best one by held-out reward, or the last one without validation.
        beside: `majority` (no model), `blind` (the start without media) and `last` (the policy
            after the last step).
        numbers: of the start and the run; `val/<name>` of the kept policy; `learn_cpu_seconds` is
            what controls get, too.  It and `learn_steps` count the part before a resume.
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
    WeightedReward.from_config(settings.reward)  # its faults must show at the start
    prepare(settings.hardware, seed)
    splits = load_splits(
        settings.data_mix, settings.trainer, settings.paths, seed, imitates(settings.curriculum)
    )
    reward = WeightedReward.from_config(judgeable(settings.reward, splits.train))
    check_solutions(settings.trainer.controls, splits.train)
    check_batch(splits.train, settings)
    policy = learning_policy(settings, seed)
    splits = askable_splits(policy.builder, splits, settings)
    numbers: dict[str, float] = {}
    if settings.model.path is None and settings.model.warm_start != "none":
        # Perception is tested with all media, also if training blanks some.
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

    training = Training(policy, settings, splits, folder, seed)
    spent = training.by_reward(reward)
    numbers |= {"learn_cpu_seconds": spent.seconds, "learn_steps": float(spent.steps)}
    beside["last"] = score_records(test, greedy_texts(policy, test), seed)
    training.keep_best()
    numbers |= validated(folder)
    after = score_records(test, greedy_texts(policy, test), seed)
    _keep(after, folder / "after.csv")
    return SeedResult(before, after, beside, numbers, test)


def _keep(scores: pd.DataFrame, file: Path) -> None:
    """Write scores at once, so that a later failure does not lose them."""
    if is_main_process():
        write_text(file, scores.to_csv(index=False))


def check_settings(settings: Settings) -> None:
    """Check at the start what would otherwise stop the run after training.

    Raises:
        FileNotFoundError: `model.path` names no checkpoint.
        ValueError: a control is unknown or needs generated clips, or the loss does not fit.
    """
    if settings.model.path is not None:
        known_checkpoint(settings.model.path, "model.path")
    check_controls(settings.trainer.controls, settings.data_mix)
    check_loss(settings.loss)
