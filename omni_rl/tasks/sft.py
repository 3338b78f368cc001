"""Supervised training: the tiny thinker's warm start, or a checkpoint on solutions of real data."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from core_rl.artifacts import write_text
from omni_rl.data import load_splits, load_test
from omni_rl.evaluate import before_after_table, compare, score_records, summarise
from omni_rl.learn import learn_by_example
from omni_rl.perception import perceived
from omni_rl.policy import OmniPolicy
from omni_rl.rollout import greedy_texts
from omni_rl.settings import Settings
from omni_rl.warm_start import make_warm_start, start_policy

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
    """
    settings = Settings(**groups)
    final = folder / "checkpoints" / "final"
    if settings.model.path is None:
        policy = make_warm_start(settings, seed, final)
        return _measure(policy, settings, seed)
    splits = load_splits(settings.data_mix, settings.trainer, settings.paths, seed)
    policy = start_policy(settings, seed)
    before = score_records(splits.test, greedy_texts(policy, splits.test), seed)
    learn_by_example(
        policy,
        splits.train,
        splits.val,
        settings,
        settings.curriculum,
        settings.trainer,
        folder,
        seed,
    )
    after = score_records(splits.test, greedy_texts(policy, splits.test), seed)
    old, new, diff = summarise(before), summarise(after), compare(before, after)
    text = before_after_table(old, new, diff)
    log.info("held-out records, before and after\n%s", text)
    write_text(folder / "report.txt", text + "\n")
    named = {f"before/{k}": v for k, v in old.items()} | {f"after/{k}": v for k, v in new.items()}
    return named | diff


def _measure(policy: OmniPolicy, settings: Settings, seed: int) -> dict[str, float]:
    test = load_test(settings.data_mix, settings.trainer, settings.paths, seed)
    policy.eval()
    metrics = summarise(score_records(test, greedy_texts(policy, test), seed))
    shares = perceived(policy, [record for record in test if record.facts])
    log.info("perceives %s, accuracy %.3f", shares, metrics["accuracy"])
    return metrics | {f"perceived/{slot}": share for slot, share in shares.items()}
