"""Stage 4: group-relative training towards people, with its start, its controls and its report."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from core_rl.files import write_text
from core_rl.hardware import is_main_process
from core_rl.run.parallel import Job, each
from core_rl.run.resume import has_resume_point, resume_point
from core_rl.run.run_folder import peak_rss_gib
from core_rl.run.shards import check_shards
from omni_rl.results.controls import ControlResult, try_control
from omni_rl.results.metrics import before_after, compare, of_metric, prefixed, summarise
from omni_rl.results.report import HEADLINE, write_report
from omni_rl.results.seed_run import SeedResult, check_settings, run_seed
from omni_rl.settings import Settings

log = logging.getLogger(__name__)

REAL = "model=humanomni_v2 data_mix=stage4_people_focus hardware=gpu8_zero2 paths.data=FOLDER"


def train(folder: Path, seed: int, **groups: Any) -> dict[str, float]:
    """Train on one seed or several and compare with the start on held-out records.

    Args:
        folder: of the run; one subfolder a seed where there are several.
        seed: added to each of `trainer.seeds`.
        groups: the fields of `omni_rl.settings.Settings`.

    Returns:
        `before/<metric>` and `after/<metric>` (held-out means over items and seeds),
        `diff/<metric>` with `_low` and `_high`, the same of the baselines and controls; and
        `val/<name>` of the kept policy on the records that chose it, the mean over seeds.
    """
    settings = one_launcher(Settings(**groups))
    check_settings(settings)
    if settings.data_mix.generated:
        log.warning("EMBEDDED RUN: generated clips, a tiny thinker.  The real one: %s", REAL)
    seeds = [seed + offset for offset in settings.trainer.seeds]
    results, beside = run_all(settings, seeds, folder)
    metrics, text = report(results, beside, settings.data_mix.general)
    log.info("held-out records, before and after\n%s", text)
    write_text(folder / "report.txt", text + "\n")
    if len(seeds) > 1:
        metrics["peak_rss_gib"] = peak_rss_gib(settings.trainer.workers)
    if is_main_process():
        try:
            write_report(folder, settings, results[0], metrics, text)
        except Exception:  # pictures must not cost a run of days its numbers
            log.exception("no report.html; the numbers stand in report.txt and metrics.json")
    return metrics


def one_launcher(settings: Settings) -> Settings:
    """Train seeds in turn if each takes several devices and starts its own processes."""
    trainer, devices = settings.trainer, settings.hardware.devices
    if trainer.workers == 1 or devices == 1:
        return settings
    log.info("trainer.workers=%d: 1, since a seed takes %d devices", trainer.workers, devices)
    return replace(settings, trainer=replace(trainer, workers=1))


def run_all(
    settings: Settings, seeds: list[int], folder: Path
) -> tuple[list[SeedResult], dict[str, list[ControlResult]]]:
    """Run the seeds and, as each is done, its controls.

    Returns:
        The seeds' results, and those of every baseline and control by name, in the order of the
        seeds.  A control that failed is left out.
    """
    names = settings.trainer.controls
    total = len(seeds) * (1 + len(names))
    resumed = resume_points(settings.trainer.resume, seeds)
    for checkpoint in resumed.values():
        check_shards(checkpoint, settings.hardware)  # before hours of evaluation
    folders = {s: folder if len(seeds) == 1 else folder / f"seed{s}" for s in seeds}
    settings = settings.side_by_side(total)
    own = {
        seed: replace(settings, trainer=replace(settings.trainer, resume=resumed[seed]))
        for seed in seeds
    }
    runs = {f"seed {seed}": seed for seed in seeds}

    def controls(name: str, result: SeedResult | ControlResult | None) -> list[Job[Any]]:
        if not isinstance(result, SeedResult):
            return []
        seed, budget = runs[name], result.numbers["learn_cpu_seconds"]
        return [
            Job(
                f"control {control} of seed {seed}",
                folders[seed],
                try_control,
                (own[seed], seed, folders[seed], control, budget),
            )
            for control in names
        ]

    jobs: list[Job[Any]] = [
        Job(name, folders[seed], run_seed, (own[seed], seed, folders[seed]))
        for name, seed in runs.items()
    ]
    done = each(jobs, settings.trainer.workers, controls, total)
    results: list[SeedResult] = [done[name] for name in runs]
    beside = {
        name: [ControlResult(result.beside[name]) for result in results]
        for name in results[0].beside
    }
    for name in names:
        ended = [done[f"control {name} of seed {seed}"] for seed in seeds]
        failed = [seed for seed, result in zip(seeds, ended, strict=True) if result is None]
        if failed:
            log.warning("the report leaves control %s out: it failed for seeds %s", name, failed)
        else:
            beside[name] = ended
    return results, beside


def resume_points(resume: str | None, seeds: list[int]) -> dict[int, str | None]:
    """Find the checkpoint that each seed goes on from; with several, its own in the run's folder.

    Of several seeds, those without a checkpoint start anew.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: there are several seeds, and none of them has a checkpoint there.
    """
    if resume is None or len(seeds) == 1:
        return dict.fromkeys(seeds, resume_point(resume))
    folders = {seed: Path(resume) / f"seed{seed}" for seed in seeds}
    begun = [seed for seed in seeds if has_resume_point(folders[seed])]
    new = [seed for seed in seeds if seed not in begun]
    if not begun:
        raise ValueError(
            f"trainer.resume={resume}: no seed{new[0]}/checkpoints/last.ckpt, nor that of another "
            "seed; name the folder of a run with these trainer.seeds, or resume one seed: "
            "trainer.seeds=[0]"
        )
    if new:
        log.info("trainer.resume=%s has no checkpoint of seeds %s: they start anew", resume, new)
    return {seed: resume_point(str(folders[seed])) if seed in begun else None for seed in seeds}


def report(
    results: list[SeedResult], beside: Mapping[str, list[ControlResult]], general: list[str]
) -> tuple[dict[str, float], str]:
    """Join the seeds' tables into metrics and a text for people."""
    before = pd.concat([result.before for result in results])
    after = pd.concat([result.after for result in results])
    metrics, text = before_after(before, after, general, HEADLINE)
    metrics |= _mean_numbers([result.numbers for result in results])
    lines = [text]
    for name, controls in beside.items():
        table = pd.concat([control.scores for control in controls])
        metrics |= _beside(name, table, before, after, general)
        metrics |= prefixed(name, _mean_numbers([control.numbers for control in controls]))
        lines.append(_line(name, metrics))
    return metrics, "\n".join(lines)


def _beside(
    name: str, table: pd.DataFrame, before: pd.DataFrame, after: pd.DataFrame, general: list[str]
) -> dict[str, float]:
    """Compare a baseline or control with the start, and the trained policy with it."""
    own = summarise(table, general)
    gain = of_metric(compare(before, table, general), "diff/accuracy")
    margin = of_metric(compare(table, after, general), "diff/accuracy")
    metrics: dict[str, float] = {}
    for metric in HEADLINE:
        metrics |= prefixed(name, of_metric(own, metric))
    metrics |= prefixed(name, gain)
    return metrics | {
        key.replace("diff/", f"after_vs_{name}/", 1): value for key, value in margin.items()
    }


def _line(name: str, metrics: Mapping[str, float]) -> str:
    """Describe a baseline or control: accuracy, and differences to start and policy."""
    line = (
        f"{name}: accuracy {metrics[f'{name}/accuracy']:.3f}, "
        f"{_difference(metrics, f'{name}/diff/accuracy')} to the start; trained policy "
        f"{_difference(metrics, f'after_vs_{name}/accuracy')} to it, detectable "
        f"{metrics[f'after_vs_{name}/accuracy_detectable']:.3f}"
    )
    seeds = [
        f"{value:.3f}"
        for key, value in of_metric(metrics, f"{name}/accuracy").items()
        if "/seed" in key
    ]
    if seeds:
        line += f"; by seed {', '.join(seeds)}"
    if f"{name}/steps" in metrics:
        steps, seconds = metrics[f"{name}/steps"], metrics[f"{name}/cpu_seconds"]
        line += f"; {steps:.0f} steps in {seconds:.0f} s of processor time"
    if f"{name}/label_accuracy" in metrics:
        line += f"; its labels are right {metrics[f'{name}/label_accuracy']:.3f} of the time"
    return line


def _difference(metrics: Mapping[str, float], name: str) -> str:
    mean, low, high = (metrics[f"{name}{end}"] for end in ("", "_low", "_high"))
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def _mean_numbers(numbers: Sequence[Mapping[str, float]]) -> dict[str, float]:
    frame = pd.DataFrame(list(numbers))
    return {str(name): float(value) for name, value in frame.mean().items()}
