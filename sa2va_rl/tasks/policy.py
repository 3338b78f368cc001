"""Step 2: train a policy that names a prompt for a picture, by PPO or on the shared loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core_rl.files import write_text
from core_rl.run.fit import resume_point
from sa2va_rl.config import RewardMode
from sa2va_rl.data.splits import load_splits
from sa2va_rl.learning.policy_stages import Learnt, Task, train_ppo, train_selector
from sa2va_rl.learning.ppo import newest_checkpoint
from sa2va_rl.learning.stages import learn_reward_net, measure, open_masks
from sa2va_rl.results.evaluate import best_fixed, evaluate_policy, policy_report
from sa2va_rl.settings import Settings

log = logging.getLogger(__name__)


def ppo(folder: Path, seed: int, **groups: Any) -> dict[str, float]:
    """Train PPO on the first of `trainer.seeds` and measure it on the test pictures.

    The reward network is trained first where it is not there yet.

    Args:
        folder: of the run: `tensorboard/`, `checkpoints/`, `final_model/`,
            `evaluation_results.json`.
        seed: added to the trainer's.
        groups: the fields of `sa2va_rl.settings.Settings`.

    Returns:
        What `evaluate.evaluate_policy` returns, `reward_net/<metric>` of the test pictures,
        `segmenter_calls` that training takes without stored masks, and `cpu_seconds_learning`.

    Raises:
        FileNotFoundError: `trainer.resume`, the run folder to go on from, has no checkpoint.
    """
    settings = Settings(**groups)
    resume = None if settings.trainer.resume is None else Path(settings.trainer.resume)
    if resume is not None:
        newest_checkpoint(resume)  # refused before the reward network is trained
    needs_judge = settings.ppo.env.reward is not RewardMode.gt_dice

    def train(task: Task) -> Learnt:
        return train_ppo(task, settings.ppo, folder, resume)

    return _run(f"ppo_{settings.ppo.name}", settings, seed, folder, needs_judge, train)


def grpo(folder: Path, seed: int, **groups: Any) -> dict[str, float]:
    """Train the policy on the shared loop; otherwise as `ppo`."""
    settings = Settings(**groups)
    resume_point(settings.trainer.resume)  # a wrong one is refused before anything is trained
    needs_judge = settings.selector.reward is not RewardMode.gt_dice
    return _run(
        "grpo", settings, seed, folder, needs_judge, lambda task: train_selector(task, folder)
    )


def _run(
    name: str,
    settings: Settings,
    seed: int,
    folder: Path,
    needs_judge: bool,
    train: Callable[[Task], Learnt],
) -> dict[str, float]:
    seed += settings.trainer.seeds[0]
    masks = open_masks(settings)
    splits = load_splits(settings.data_mix, seed)
    judged = learn_reward_net(settings, splits, masks, seed) if needs_judge else None
    learnt = train(Task(settings, splits, masks, judged, seed))
    fixed = best_fixed(measure(settings, splits.train, masks, judged))
    held = measure(settings, splits.test, masks, judged)
    path = folder / "evaluation_results.json"
    figures = evaluate_policy(name, learnt.policy, held, fixed, path)
    text = policy_report(name, figures, learnt.policy.prompts)
    log.info("%d test pictures\n%s", len(splits.test), text)
    write_text(folder / "report.txt", text + "\n")
    judging = {} if judged is None else judged.test_figures
    return (
        figures
        | judging
        | {
            "segmenter_calls": learnt.figures["segmenter_calls"],
            "cpu_seconds_learning": learnt.figures["cpu_seconds"],
        }
    )
