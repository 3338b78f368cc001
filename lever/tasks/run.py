"""Every stage in order, on one world or several, and the comparison of what they led to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core_rl.files import write_text
from core_rl.run.parallel import Job, each
from core_rl.run.run_folder import peak_rss_gib
from lever.learning.trained_methods import PIPELINE, check_arms
from lever.results.report import write_report
from lever.results.table import compare
from lever.results.world_scores import WorldScores, score_world
from lever.settings import Settings

log = logging.getLogger(__name__)


def run(folder: Path, seed: int, **groups: Any) -> dict[str, float]:
    """Run the pipeline on the worlds of some seeds and compare the methods.

    Args:
        folder: of the run; one subfolder a seed.
        seed: added to each of `trainer.seeds`; a seed is a world of its own.
        groups: the fields of `lever.settings.Settings`.

    Returns:
        What `lever.results.table.compare` returns.

    Raises:
        ValueError: `trainer.resume` is set: there is no single training to go on with.
    """
    settings = Settings(**groups)
    if settings.trainer.resume is not None:
        raise ValueError(
            f"trainer.resume={settings.trainer.resume}: +exp=lever runs many trainings, and finds "
            "those that are finished again by itself: leave it out and run again; one training is "
            "resumed with +exp=lever_sft or +exp=lever_rce_grpo"
        )
    check_arms(settings.pipeline.arms, settings.data_mix.kind)
    seeds = [seed + offset for offset in settings.trainer.seeds]
    worlds = score_worlds(settings, seeds, folder)
    metrics, text = compare(worlds)
    log.info("held-out queries\n%s", text)
    write_text(folder / "report.txt", text + "\n")
    name = f"{settings.model.name} on {settings.data_mix.name}"
    write_report(folder, name, metrics, [*PIPELINE, *settings.pipeline.arms], text)
    if len(seeds) > 1:
        metrics["peak_rss_gib"] = peak_rss_gib(settings.trainer.workers)
    return metrics


def score_worlds(settings: Settings, seeds: Sequence[int], folder: Path) -> list[WorldScores]:
    """Score each world, `trainer.workers` at a time."""
    settings = settings.side_by_side(len(seeds))
    folders = {seed: folder / f"seed{seed}" for seed in seeds}
    jobs = [
        Job(f"world {seed}", into, score_world, (settings, seed, into))
        for seed, into in folders.items()
    ]
    return list(each(jobs, settings.trainer.workers).values())
