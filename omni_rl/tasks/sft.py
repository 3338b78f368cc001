"""Supervised training: the warm start of the tiny thinker, or a checkpoint on solutions."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from core_rl.config import PhaseKind
from core_rl.files import write_text
from core_rl.run.callbacks import validated
from omni_rl.config import Blank
from omni_rl.data.splits import load_splits, load_test
from omni_rl.learning.fit_policy import Training, check_batch
from omni_rl.learning.perception import perceived
from omni_rl.learning.usable import askable_splits
from omni_rl.learning.warm_start import learning_policy, make_warm_start
from omni_rl.policy.policy import OmniPolicy, known_checkpoint
from omni_rl.policy.rollout import greedy_texts
from omni_rl.results.metrics import before_after, summarise
from omni_rl.rewards.scores import score_records
from omni_rl.settings import Settings

log = logging.getLogger(__name__)


def sft(folder: Path, seed: int, **groups: Any) -> dict[str, float]:
    """Train on solutions and compare with the start on held-out records.

    Without `model.path` this makes the warm start of the tiny thinker under
    `checkpoints/final`, the one that ships with the package for seed 0.

    Args:
        folder: of the run.
        seed: of data and order.
        groups: the fields of `omni_rl.settings.Settings`.

    Returns:
        Metrics on the test records; with a checkpoint to start from, before and after.

    Raises:
        FileNotFoundError: `model.path` names no checkpoint.
        ValueError: a setting that supervised training does not have, or a record without solution.
    """
    settings = Settings(**groups)
    check_settings(settings)
    final = folder / "checkpoints" / "final"
    if settings.model.path is None:
        policy = make_warm_start(settings, seed, final)
        return _measure(policy, settings, seed)
    splits = load_splits(settings.data_mix, settings.trainer, settings.paths, seed, taught=True)
    check_batch(splits.train, settings)
    policy = learning_policy(settings, seed)
    splits = askable_splits(policy.builder, splits, settings)
    before = score_records(splits.test, greedy_texts(policy, splits.test), seed)
    training = Training(policy, settings, splits, folder, seed)
    training.by_example()
    training.keep_best()
    after = score_records(splits.test, greedy_texts(policy, splits.test), seed)
    metrics, text = before_after(before, after, settings.data_mix.general)
    log.info("held-out records, before and after\n%s", text)
    write_text(folder / "report.txt", text + "\n")
    return metrics | validated(folder)


def check_settings(settings: Settings) -> None:
    """Check at the start what would stop the run later, or be ignored.

    Raises:
        FileNotFoundError: `model.path` names no checkpoint.
        ValueError: a phase is not supervised, or media of the warm start are blanked.
    """
    path, blank = settings.model.path, settings.data_mix.blank
    if path is None:
        if blank is not Blank.none:
            raise ValueError(
                f"data_mix.blank={blank.value}: a warm start is made with its media; leave it out, "
                "or train a checkpoint: model.path=FOLDER"
            )
        return
    known_checkpoint(path, "model.path")
    kinds = [phase.kind.value for phase in settings.curriculum.phases]
    if set(kinds) != {PhaseKind.rce.value}:
        raise ValueError(
            f"curriculum.phases={kinds}: supervised training has phases of kind rce only; use "
            "curriculum=rce, or +exp=stage4_people_focus for the others"
        )


def _measure(policy: OmniPolicy, settings: Settings, seed: int) -> dict[str, float]:
    test = load_test(settings.data_mix, settings.trainer, settings.paths, seed)
    policy.eval()
    table = score_records(test, greedy_texts(policy, test), seed)
    metrics = summarise(table, settings.data_mix.general)
    shares = perceived(policy, [record for record in test if record.facts])
    log.info("perceives %s, accuracy %.3f", shares, metrics["accuracy"])
    return metrics | {f"perceived/{slot}": share for slot, share in shares.items()}
