"""Step 2: train a policy that chooses a prompt for a picture, by PPO or on the shared loop."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from core_rl.files import write_text
from core_rl.run.resume import resume_point
from sa2va_rl.config import RewardMode
from sa2va_rl.learning.policy_stages import (
    PolicyInputs,
    TrainedPolicy,
    open_inputs,
    train_ppo,
    train_selector,
)
from sa2va_rl.learning.ppo import newest_checkpoint
from sa2va_rl.results.evaluate import best_fixed, evaluate_policy, policy_report, validate_policy
from sa2va_rl.settings import Settings

log = logging.getLogger(__name__)


def ppo(folder: Path, seed: int, **groups: Any) -> dict[str, float]:
    """Train PPO on the first of `trainer.seeds` and evaluate it on the test pictures.

    The reward network is trained first, unless a finished one is found.

    Args:
        folder: of the run: `tensorboard/`, `checkpoints/`, `final_model/`,
            `evaluation_results.json`.
        seed: added to the seed of `trainer.seeds`.
        groups: the fields of `sa2va_rl.settings.Settings`.

    Returns:
        What `evaluate.evaluate_policy` returns, `reward_net/<metric>` of the test pictures,
        `segmenter_calls` that training needs without stored masks, and `cpu_seconds_learning`.

    Raises:
        FileNotFoundError: `trainer.resume`, the run folder to continue from, has no checkpoint.
    """
    settings = Settings(**groups)
    resume = None if settings.trainer.resume is None else Path(settings.trainer.resume)
    if resume is not None:
        newest_checkpoint(resume)  # fails before the reward network is trained
    needs_judge = settings.ppo.env.reward is not RewardMode.gt_dice

    inputs = open_inputs(settings, seed + settings.trainer.seeds[0], needs_judge)
    learnt = train_ppo(inputs, settings.ppo, folder, resume)
    return _evaluate(f"ppo_{settings.ppo.name}", inputs, learnt, folder)


def grpo(folder: Path, seed: int, **groups: Any) -> dict[str, float]:
    """Train the policy on the shared loop; otherwise as `ppo`."""
    settings = Settings(**groups)
    resume_point(settings.trainer.resume)  # fails before the reward network is trained
    needs_judge = settings.selector.reward is not RewardMode.gt_dice
    inputs = open_inputs(settings, seed + settings.trainer.seeds[0], needs_judge)
    return _evaluate("grpo", inputs, train_selector(inputs, folder), folder)


def _evaluate(
    name: str, inputs: PolicyInputs, learnt: TrainedPolicy, folder: Path
) -> dict[str, float]:
    fixed = best_fixed(inputs.measure(inputs.splits.train))
    held = inputs.measure(inputs.splits.test)
    validation = validate_policy(learnt.policy, inputs.measure(inputs.splits.val))
    path = folder / "evaluation_results.json"
    figures = evaluate_policy(name, learnt.policy, held, fixed, path)
    text = policy_report(name, figures, learnt.policy.prompts)
    log.info("%d test pictures\n%s", len(held.samples), text)
    write_text(folder / "report.txt", text + "\n")
    return (
        figures
        | ({} if inputs.judged is None else inputs.judged.test_figures)
        | {f"val/{key}": value for key, value in validation.items()}
        | {
            "segmenter_calls": learnt.figures["segmenter_calls"],
            "cpu_seconds_learning": learnt.figures["cpu_seconds"],
        }
    )
