"""Every step in order: reward network, PPO, the shared loop, evaluation, comparison.

What was done with the same settings is not done again (`core_rl.run.stages`), so that a run that
was stopped goes on, and a run with another PPO trains another PPO and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from core_rl.files import write_text
from core_rl.run.parallel import Job, each
from core_rl.run.run_folder import peak_rss_gib
from sa2va_rl.compare_config import CompareConfig
from sa2va_rl.config import CompareSizes
from sa2va_rl.data.splits import load_splits
from sa2va_rl.learning.policy_stages import Task, learn_ppo, learn_selector
from sa2va_rl.learning.stages import learn_reward_net, measure, open_masks
from sa2va_rl.results.evaluate import best_fixed, evaluate_policy, policy_report
from sa2va_rl.results.seed_run import check_comparison
from sa2va_rl.settings import Settings
from sa2va_rl.tasks.compare import compare_methods

log = logging.getLogger(__name__)


def run(
    folder: Path, seed: int, compare: CompareConfig, compare_sizes: CompareSizes, **groups: Any
) -> dict[str, float]:
    """Run the steps on every seed, then the comparison.

    Args:
        folder: of the run; one subfolder a seed, with the policies' evaluations.
        seed: added to each of `trainer.seeds`.
        compare: of the comparison, the last step.
        compare_sizes: pictures of the comparison.
        groups: the fields of `sa2va_rl.settings.Settings`.

    Returns:
        What `sa2va_rl.tasks.compare` returns, and the means of what the steps found, over the
        seeds that have a figure: `steps/reward_net/<metric>`, `steps/<policy>/<metric>`.

    Raises:
        ValueError: `trainer.resume` is set, or what `check_comparison` refuses.
    """
    settings = Settings(**groups)
    settings.refuse_resume()
    seeds = [seed + offset for offset in settings.trainer.seeds]
    sized = replace(
        settings.data_mix,
        train=compare_sizes.train,
        val=compare_sizes.val,
        test=compare_sizes.test,
    )
    check_comparison(replace(settings, data_mix=sized), seeds[0])
    found = run_steps(settings, seeds, folder)
    metrics = means(found)
    text = report(metrics, settings, len(seeds))
    log.info("the steps on held-out pictures\n%s", text)
    write_text(folder / "steps.txt", text + "\n")
    metrics |= compare_methods(folder, seed, compare, **{**groups, "data_mix": sized})
    if len(seeds) > 1:
        metrics["peak_rss_gib"] = peak_rss_gib(settings.trainer.workers)
    return metrics


def means(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average each figure as `steps/<name>` over the seeds that have it."""
    return {f"steps/{name}": float(value) for name, value in pd.DataFrame(found).mean().items()}


def run_steps(settings: Settings, seeds: Sequence[int], folder: Path) -> list[dict[str, float]]:
    """Run the steps of every seed, `trainer.workers` at a time."""
    settings = settings.side_by_side(len(seeds))
    folders = {seed: folder / f"seed{seed}" for seed in seeds}
    jobs = [
        Job(f"seed {seed}", into, seed_steps, (settings, seed, into))
        for seed, into in folders.items()
    ]
    return list(each(jobs, settings.trainer.workers).values())


def seed_steps(settings: Settings, seed: int, folder: Path) -> dict[str, float]:
    """Reward network, PPO, the shared loop and their evaluation for one seed.

    Returns:
        `reward_net/<metric>` on test pictures, `<policy>/<metric>` of `evaluate.evaluate_policy`,
        `<policy>/segmenter_calls` and `<policy>/cpu_seconds`.
    """
    masks, splits = open_masks(settings), load_splits(settings.data_mix, seed)
    judged = learn_reward_net(settings, splits, masks, seed)
    task = Task(settings, splits, masks, judged, seed)
    learnt = {
        f"ppo_{settings.ppo.name}": learn_ppo(task, settings.ppo),
        "grpo": learn_selector(task),
    }
    fixed = best_fixed(measure(settings, splits.train, masks, judged))
    held = measure(settings, splits.test, masks, judged)
    figures = judged.test_figures
    for name, one in learnt.items():
        path = folder / "evaluation" / f"{name}.json"
        own = evaluate_policy(name, one.policy, held, fixed, path)
        figures |= {f"{name}/{key}": value for key, value in {**own, **one.figures}.items()}
    return figures | {"segmenter_calls": float(masks.calls)}


def report(metrics: Mapping[str, float], settings: Settings, seeds: int) -> str:
    """Lay the means over seeds out for people."""
    size = settings.data_mix.train
    parts = [f"{size} training pictures, means over {seeds} seed(s)"]
    for name in (f"ppo_{settings.ppo.name}", "grpo"):
        prefix = f"steps/{name}/"
        own = {k.removeprefix(prefix): v for k, v in metrics.items() if k.startswith(prefix)}
        parts.append(policy_report(name, own, settings.prompts))
    within = metrics.get("steps/reward_net/within_image_spearman")
    if within is not None:
        parts.append(f"reward network: rank correlation within a picture {within:.3f}")
    return "\n\n".join(parts)
