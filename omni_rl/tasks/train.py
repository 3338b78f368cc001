"""Stage 4: group-relative training towards people, with its start, its controls and its report."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd

from core_rl.artifacts import write_text
from omni_rl import evaluate
from omni_rl.settings import Settings
from omni_rl.stage4 import CONTROLS, SeedResult, run_seed

log = logging.getLogger(__name__)

HEADLINE = (
    "people_focus",
    "grounded_focus",
    "format",
    "accuracy",
    "general_accuracy",
    "instruction_following",
)
REAL = "model=humanomni_v2 data_mix=stage4_people_focus hardware=gpu8_zero2 paths.data=FOLDER"


def train(folder: Path, seed: int, **groups: Any) -> dict[str, float]:
    """Train on one seed or several and compare with the start on held-out records.

    Args:
        folder: of the run; one subfolder a seed where there are several.
        seed: added to each of `trainer.seeds`.
        groups: the fields of `omni_rl.settings.Settings`.

    Returns:
        `before/<metric>` and `after/<metric>` (held-out means over items and seeds),
        `diff/<metric>` with `_low` and `_high`, the same of the baselines and controls.
    """
    settings = Settings(**groups)
    unknown = sorted(set(settings.trainer.controls) - set(CONTROLS))
    if unknown:
        raise ValueError(f"trainer.controls={unknown}: expected names among {sorted(CONTROLS)}")
    if settings.data_mix.generated:
        log.warning("EMBEDDED RUN: generated clips, a tiny thinker.  The real one: %s", REAL)
    seeds = [seed + offset for offset in settings.trainer.seeds]
    results = run_seeds(settings, seeds, folder)
    metrics, text = report(results, settings)
    log.info("held-out records, before and after\n%s", text)
    write_text(folder / "report.txt", text + "\n")
    return metrics


def run_seeds(settings: Settings, seeds: list[int], folder: Path) -> list[SeedResult]:
    """Run seeds, side by side where `trainer.workers` says so."""
    if len(seeds) == 1:
        return [run_seed(settings, seeds[0], folder)]
    folders = [folder / f"seed{seed}" for seed in seeds]
    if settings.trainer.workers == 1:
        return [run_seed(settings, s, f) for s, f in zip(seeds, folders, strict=True)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(settings.trainer.workers, mp_context=context) as pool:
        jobs = [
            pool.submit(_in_worker, settings, s, f) for s, f in zip(seeds, folders, strict=True)
        ]
        return [job.result() for job in jobs]


def _in_worker(settings: Settings, seed: int, folder: Path) -> SeedResult:
    """Run a seed in a process of its own, which logs into the seed's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=folder / "train.log",
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    return run_seed(settings, seed, folder)


def report(results: list[SeedResult], settings: Settings) -> tuple[dict[str, float], str]:
    """Join the seeds' tables into metrics and a text for people."""
    general = settings.data_mix.general
    before = pd.concat([result.before for result in results])
    after = pd.concat([result.after for result in results])
    old, new = (evaluate.summarise(table, general) for table in (before, after))
    diff = evaluate.compare(before, after, general)
    metrics = {**_prefixed("before", old), **_prefixed("after", new), **diff}
    metrics |= _numbers(results)
    lines = [evaluate.before_after_table(old, new, diff, HEADLINE)]
    for kind in ("baselines", "controls"):
        for name in getattr(results[0], kind):
            table = pd.concat([getattr(result, kind)[name] for result in results])
            metrics |= _beside(name, table, before, after, general)
            lines.append(_line(name, metrics))
    return metrics, "\n".join(lines)


def _beside(
    name: str, table: pd.DataFrame, before: pd.DataFrame, after: pd.DataFrame, general: list[str]
) -> dict[str, float]:
    """Compare a baseline or control with the start, and the trained policy with it."""
    own = evaluate.summarise(table, general)
    gain = evaluate.compare(before, table, general)
    margin = evaluate.compare(table, after, general)
    kept = {key: value for key, value in own.items() if key in HEADLINE}
    ends = ("", "_low", "_high")
    return {
        **_prefixed(name, kept),
        **{f"{name}/diff/accuracy{end}": gain[f"diff/accuracy{end}"] for end in ends},
        **{f"after_vs_{name}/accuracy{end}": margin[f"diff/accuracy{end}"] for end in ends},
    }


def _line(name: str, metrics: Mapping[str, float]) -> str:
    margin = [metrics[f"after_vs_{name}/accuracy{end}"] for end in ("", "_low", "_high")]
    return (
        f"{name}: accuracy {metrics[f'{name}/accuracy']:.3f}, "
        f"trained policy above it by {margin[0]:+.3f} [{margin[1]:+.3f}, {margin[2]:+.3f}]"
    )


def _prefixed(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in metrics.items()}


def _numbers(results: list[SeedResult]) -> dict[str, float]:
    frame = pd.DataFrame([result.numbers for result in results])
    return {str(name): float(value) for name, value in frame.mean().items()}
