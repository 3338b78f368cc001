"""Train one selector: by supervision with beams, or by RCE and GRPO."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from core_rl.run.callbacks import validated
from lever.learning.fit_selector import learn
from lever.learning.stages import Workshop, reads
from lever.model_config import PhaseData
from lever.results import choose
from lever.rewards.build import build_reward
from lever.settings import Settings

log = logging.getLogger(__name__)


def sft(folder: Path, seed: int, **groups: Any) -> dict[str, float]:
    """Train a selector on beam data by the phases of `curriculum`.

    Args:
        folder: of the run.
        seed: of the data and of the order of the queries.
        groups: the fields of `lever.settings.Settings`.

    Returns:
        `before/accuracy` and `after/accuracy` of held-out queries, `val/<name>` of the policy with
        the best validation, and `answerer_calls`.
    """
    settings = Settings(**groups)
    return _train(folder, seed, settings, settings.learn.checkpoint)


def rce_grpo(folder: Path, seed: int, **groups: Any) -> dict[str, float]:
    """Train a supervised selector further by the phases of `curriculum`.

    Args:
        folder: of the run.
        seed: of the data and of the order of the queries.
        groups: the fields of `lever.settings.Settings`.  `learn.checkpoint` names the selector to
            start from; if it is null the supervised one is trained first, except in a dry run.

    Returns:
        As `sft`.
    """
    settings = Settings(**groups)
    if settings.learn.checkpoint is not None or settings.learn.dry_run:
        return _train(folder, seed, settings, settings.learn.checkpoint)
    with Workshop.open(settings, seed) as shop:
        start = shop.sft()
    return _train(folder, seed, settings, str(start))


def _train(folder: Path, seed: int, settings: Settings, start: str | None) -> dict[str, float]:
    with Workshop.open(settings, seed) as shop:
        return _learn(folder, shop, start)


def _learn(folder: Path, shop: Workshop, start: str | None) -> dict[str, float]:
    settings, data = shop.settings, shop.data
    policy = shop.selector(start)
    records = {}
    if reads(settings.curriculum, PhaseData.stored):
        records = shop.rl_data(_sampling(shop, start))
    lessons = replace(shop.lessons_of(settings.curriculum), records=records)
    reward = build_reward(settings.reward, shop.judge(records), data, policy.features)
    if settings.learn.dry_run:
        phases = len(settings.curriculum.phases)
        settings = replace(settings, trainer=replace(settings.trainer, max_steps=phases))
        log.info("dry run: one update of each phase, no test queries, no checkpoint")
        with TemporaryDirectory() as scratch:  # for checkpoints, which are deleted
            learn(policy, lessons, reward, settings, Path(scratch))
    else:
        learn(policy, lessons, reward, settings, folder)
    metrics = {"queries": float(len(lessons.train)), **validated(folder)}
    if not settings.learn.dry_run:
        before = choose.by_selector(shop.selector(start), data.test)
        after = choose.by_selector(policy, data.test)
        for name, slates in (("before", before), ("after", after)):
            scores = choose.scores_of(data, shop.setup.answerer, slates, shop.rule)
            metrics[f"{name}/accuracy"] = float(scores.mean())
        log.info(
            "held-out accuracy %.3f -> %.3f", metrics["before/accuracy"], metrics["after/accuracy"]
        )
    return {**metrics, "answerer_calls": float(shop.setup.answerer.calls)}


def _sampling(shop: Workshop, start: str | None) -> Path | None:
    """Return the checkpoint that samples RL data; None = untrained, or the data exist."""
    if start is not None:
        return Path(start)
    given = shop.settings.learn
    return None if given.dry_run or given.rl_data is not None else shop.sft()
