"""Every step in order: reward network, PPO, the shared loop, evaluation, comparison.

Parts that were finished with the same settings are reused (`core_rl.run.stages`): a stopped run is
continued, and a run with another PPO trains that PPO and nothing else.
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
from sa2va_rl.learning.policy_stages import learn_ppo, learn_selector, open_inputs
from sa2va_rl.results.evaluate import (
    best_fixed,
    evaluate_policy,
    policy_report,
    validate_policy,
)
from sa2va_rl.results.seed_run import check_comparison
from sa2va_rl.settings import Settings
from sa2va_rl.tasks.compare import compare_methods

log = logging.getLogger(__name__)


def run(
    folder: Path, seed: int, compare: CompareConfig, compare_sizes: CompareSizes, **groups: Any
) -> dict[str, float]:
    """Run the steps on every seed, then the comparison.

    Args:
        folder: of the run; the policies' evaluations are in one subfolder a seed.
        seed: added to each of `trainer.seeds`.
        compare: settings of the comparison, the last step.
        compare_sizes: numbers of pictures in the comparison.
        groups: the fields of `sa2va_rl.settings.Settings`.

    Returns:
        What `sa2va_rl.tasks.compare` returns, and the steps' figures as means over the seeds that
        have them: `steps/reward_net/<metric>`, `steps/<policy>/<metric>`.

    Raises:
        ValueError: `trainer.resume` is set, or `check_comparison` refuses the settings.
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
    """Average each figure over the seeds that have it: `val/<name>`, others as `steps/<name>`."""
    averaged = {str(name): float(value) for name, value in pd.DataFrame(found).mean().items()}
    return {
        name if name.startswith("val/") else f"steps/{name}": value
        for name, value in averaged.items()
    }


def run_steps(settings: Settings, seeds: Sequence[int], folder: Path) -> list[dict[str, float]]:
    """Run the steps of every seed, `trainer.workers` seeds at a time."""
    settings = settings.side_by_side(len(seeds))
    folders = {seed: folder / f"seed{seed}" for seed in seeds}
    jobs = [
        Job(f"seed {seed}", into, seed_steps, (settings, seed, into))
        for seed, into in folders.items()
    ]
    return list(each(jobs, settings.trainer.workers).values())


def seed_steps(settings: Settings, seed: int, folder: Path) -> dict[str, float]:
    """Train and evaluate reward network, PPO and the shared loop's policy for one seed.

    Returns:
        `reward_net/<metric>` on test pictures, `<policy>/<metric>` of `evaluate.evaluate_policy`,
        `<policy>/segmenter_calls` and `<policy>/cpu_seconds`, and `val/<policy>/<metric>`.
    """
    inputs = open_inputs(settings, seed)
    learnt = {
        f"ppo_{settings.ppo.name}": learn_ppo(inputs, settings.ppo),
        "grpo": learn_selector(inputs),
    }
    fixed = best_fixed(inputs.measure(inputs.splits.train))
    held = inputs.measure(inputs.splits.test)
    validation = inputs.measure(inputs.splits.val)
    assert inputs.judged is not None
    figures = inputs.judged.test_figures
    for name, one in learnt.items():
        path = folder / "evaluation" / f"{name}.json"
        own = evaluate_policy(name, one.policy, held, fixed, path)
        figures |= {f"{name}/{key}": value for key, value in {**own, **one.figures}.items()}
        chose = validate_policy(one.policy, validation)
        figures |= {f"val/{name}/{key}": value for key, value in chose.items()}
    return figures | {"segmenter_calls": float(inputs.masks.calls)}


def report(metrics: Mapping[str, float], settings: Settings, seeds: int) -> str:
    """Format the means over seeds."""
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
