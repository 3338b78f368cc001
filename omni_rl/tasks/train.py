"""Stage 4: group-relative training towards people, with its start, its controls and its report."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from core_rl.artifacts import peak_rss_gib, write_text
from omni_rl import evaluate
from omni_rl.settings import Settings
from omni_rl.stage4 import CONTROLS, SeedResult, run_control, run_seed

log = logging.getLogger(__name__)

T = TypeVar("T")

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
    results = _each(run_seed, settings, [_Job(s, _folder(folder, s, seeds)) for s in seeds])
    beside = {name: [result.beside[name] for result in results] for name in results[0].beside}
    jobs = [
        _Job(s, _folder(folder, s, seeds), (name, result.numbers["learn_cpu_seconds"]))
        for name in settings.trainer.controls
        for s, result in zip(seeds, results, strict=True)
    ]
    for job, table in zip(jobs, _each(run_control, settings, jobs), strict=True):
        beside.setdefault(job.extra[0], []).append(table)
    metrics, text = report(results, beside, settings.data_mix.general)
    log.info("held-out records, before and after\n%s", text)
    write_text(folder / "report.txt", text + "\n")
    if len(seeds) > 1:
        metrics["peak_rss_gib"] = peak_rss_gib(settings.trainer.workers)
    return metrics


@dataclass(frozen=True)
class _Job:
    """One seed's work: its folder and further arguments."""

    seed: int
    folder: Path
    extra: tuple[Any, ...] = ()


def _folder(folder: Path, seed: int, seeds: list[int]) -> Path:
    return folder if len(seeds) == 1 else folder / f"seed{seed}"


def _each(work: Callable[..., T], settings: Settings, jobs: Sequence[_Job]) -> list[T]:
    """Do jobs in turn, or side by side in processes where `trainer.workers` says so."""
    workers = min(settings.trainer.workers, len(jobs))
    if workers <= 1:
        return [work(settings, job.seed, job.folder, *job.extra) for job in jobs]
    context = multiprocessing.get_context("spawn")
    began = time.monotonic()
    with ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as pool:
        futures = [pool.submit(_in_process, work, settings, job) for job in jobs]
        for done, _ in enumerate(as_completed(futures), start=1):
            spent = time.monotonic() - began
            left = spent / done * (len(jobs) - done)
            log.info("%d of %d jobs done, about %.0f min left", done, len(jobs), left / 60)
        return [future.result() for future in futures]


def _in_process(work: Callable[..., T], settings: Settings, job: _Job) -> T:
    """Do a job in a process of its own, which logs into the seed's folder."""
    job.folder.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=job.folder / "train.log",
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    trainer = replace(settings.trainer, progress=False)
    return work(replace(settings, trainer=trainer), job.seed, job.folder, *job.extra)


def report(
    results: list[SeedResult], beside: Mapping[str, list[pd.DataFrame]], general: list[str]
) -> tuple[dict[str, float], str]:
    """Join the seeds' tables into metrics and a text for people."""
    before = pd.concat([result.before for result in results])
    after = pd.concat([result.after for result in results])
    old, new = (evaluate.summarise(table, general) for table in (before, after))
    diff = evaluate.compare(before, after, general)
    metrics = {**_prefixed("before", old), **_prefixed("after", new), **diff}
    metrics |= _numbers(results)
    lines = [evaluate.before_after_table(old, new, diff, HEADLINE)]
    for name, tables in beside.items():
        metrics |= _beside(name, pd.concat(tables), before, after, general)
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
