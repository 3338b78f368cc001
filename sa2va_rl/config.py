"""Settings of the prompt choice, as plain dataclasses; no torch here (see `core_rl.config`)."""

from __future__ import annotations

from dataclasses import dataclass, field
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


QUALITIES = ("dice", "iou", "precision", "recall")


@dataclass
class RewardNetConfig:
    """Shape of the reward network and what it learns to predict."""

    side: int = 112  # pixels of the square that picture and mask are brought to
    width: int = 24  # channels of the first layer
    # Weights of the label's parts (dice, iou, precision, recall); they sum to 1.
    label: dict[str, float] = field(default_factory=lambda: {"dice": 1.0})

    def __post_init__(self) -> None:
        require(self.side >= 32, "reward_net.side", self.side, "at least 32")
        require(self.width >= 4, "reward_net.width", self.width, "at least 4")
        known = set(self.label) <= set(QUALITIES) and all(w >= 0 for w in self.label.values())
        require(
            known and abs(sum(self.label.values()) - 1) < 1e-6,
            "reward_net.label",
            self.label,
            f"weights of {', '.join(QUALITIES)}, none negative, that sum to 1",
        )
