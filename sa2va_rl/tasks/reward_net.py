"""Step 1: train and evaluate the reward network, which scores masks without the true mask."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core_rl.files import write_text
from sa2va_rl.data.splits import load_splits
from sa2va_rl.learning.stages import learn_reward_net, open_masks
from sa2va_rl.rewards.reward_net import save_reward_net
from sa2va_rl.settings import Settings

log = logging.getLogger(__name__)

JUDGED = (
    *("mae", "r2", "pearson", "spearman", "within_image_spearman"),
    *("argmax_regret", "calibration_error"),
)
PROBES = ("truth", "empty", "full", "dilated", "eroded", "shifted", "foreign")


def reward_net(folder: Path, seed: int, **groups: Any) -> dict[str, float]:
    """Train a reward network on the first of `trainer.seeds`, or reuse a finished one.

    Args:
        folder: of the run; the network is written to `checkpoints/final`.
        seed: added to the seed of `trainer.seeds`.
        groups: the fields of `sa2va_rl.settings.Settings`.

    Returns:
        `val/<metric>` and `test/<metric>` of `reward_fit.evaluate_reward_net`, and
        `segmenter_calls`.

    Raises:
        ValueError: `reward_fit.path` or `trainer.resume` is set.
    """
    settings = Settings(**groups)
    settings.refuse_resume()
    if settings.reward_fit.path is not None:
        raise ValueError(
            f"reward_fit.path={settings.reward_fit.path}: this experiment trains a network; leave "
            "it null"
        )
    seed += settings.trainer.seeds[0]
    masks = open_masks(settings)
    splits = load_splits(settings.data_mix, seed)
    judged = learn_reward_net(settings, splits, masks, seed, folder)
    save_reward_net(judged.net, folder / "checkpoints" / "final")
    text = report(judged.figures)
    log.info("reward network on held-out pictures\n%s", text)
    write_text(folder / "report.txt", text + "\n")
    return judged.figures | {"segmenter_calls": float(masks.calls)}


def report(figures: Mapping[str, float]) -> str:
    """Format the metrics, and the scores of true, corrupted and foreign masks."""
    lines = ["metric                      val    test"]
    lines += [
        f"{name:<24}{figures[f'val/{name}']:7.3f} {figures[f'test/{name}']:7.3f}" for name in JUDGED
    ]
    lines += ["", "mean over test pictures   score   label"]
    lines += [
        f"{kind:<24}{figures[f'test/probe/{kind}']:7.3f} {figures[f'test/probe_label/{kind}']:7.3f}"
        for kind in PROBES
        if f"test/probe/{kind}" in figures  # a split of one film has no foreign masks
    ]
    return "\n".join(lines)
