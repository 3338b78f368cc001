"""Settings of the prompt choice, as plain dataclasses; no torch here (see `core_rl.config`)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from core_rl.config import require


class RewardMode(Enum):
    """What an action is paid by."""

    reward_net = "reward_net"  # the learned judge alone: needs no truth
    gt_dice = "gt_dice"  # the truth: a reference for what the judge costs
    mix = "mix"


@dataclass
class EnvConfig:
    """How an episode goes and what it pays."""

    reward: RewardMode = RewardMode.reward_net
    dice_share: float = 0.5  # of the truth in `mix`
    max_steps: int = 1
    # Take the mean over all prompts off, per picture: what is left is what the choice is worth.
    # It needs the masks of every prompt, which the cache has after the first pass.
    centre: bool = False
    scale: float = 1.0

    def __post_init__(self) -> None:
        require(0 <= self.dice_share <= 1, "env.dice_share", self.dice_share, "from 0 to 1")
        require(self.max_steps >= 1, "env.max_steps", self.max_steps, "at least 1")
        require(self.scale > 0, "env.scale", self.scale, "above 0")
