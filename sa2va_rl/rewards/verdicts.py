"""Scores of a picture's mask under each prompt, by the reward network and by the true mask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sa2va_rl.config import EnvConfig, RewardMode
from sa2va_rl.data.features import Floats
from sa2va_rl.data.files import Sample
from sa2va_rl.prompts import check_prompts
from sa2va_rl.segmenters.mask_cache import Mask, overlap


class Masks(Protocol):
    """Makes or reads masks: `segmenters.mask_cache.MaskCache`."""

    def __call__(self, image_HWC: NDArray[np.uint8], prompt: str) -> Mask: ...


class Judge(Protocol):
    """Scores a mask of a picture in [0, 1] without the true mask."""

    def __call__(self, image_HWC: NDArray[np.uint8], mask_HW: Mask) -> float: ...


@dataclass(frozen=True)
class Verdict:
    """Scores of one picture's mask under one prompt.

    Attributes:
        reward_net: the reward network's score; NaN without a network.
        gt_dice: Dice with the true mask; NaN without one.
    """

    reward_net: float
    gt_dice: float


class Verdicts:
    """Scores of every picture and prompt, each computed on demand and once.

    Args:
        samples: pictures, in the order of their indices.
        prompts: texts, in the order of their indices.
        masks: makes or reads the masks.
        judge: the reward network; None = Dice alone.
        known: store of verdicts by the indices of picture and prompt, shared between objects.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        prompts: Sequence[str],
        masks: Masks,
        judge: Judge | None = None,
        known: dict[tuple[int, int], Verdict] | None = None,
    ) -> None:
        if not samples:
            raise ValueError("no pictures: expected at least one")
        self.samples = tuple(samples)
        self.prompts = check_prompts(prompts)
        self.masks = masks
        self.judge = judge
        self._known = {} if known is None else known
        self._asked: set[tuple[int, int]] = set()

    def __call__(self, picture: int, prompt: int) -> Verdict:
        """Return the verdict on a picture's mask under a prompt, by their indices."""
        key = picture, prompt
        self._asked.add(key)
        if key not in self._known:
            self._known[key] = self._make(self.samples[picture], self.prompts[prompt])
        return self._known[key]

    def known(self, picture: int) -> dict[int, Verdict]:
        """Return the verdicts on a picture that were requested of this object, by prompt."""
        everything = range(len(self.prompts))
        return {k: self._known[picture, k] for k in everything if (picture, k) in self._asked}

    @property
    def asked(self) -> int:
        """Number of different pairs requested: the segmenter calls if no mask were stored."""
        return len(self._asked)

    @cached_property
    def features_BD(self) -> Floats:  # noqa: N802  # named as arrays are
        """Features of each picture, not standardised."""
        return np.stack([sample.features_D for sample in self.samples])

    def mask(self, picture: int, prompt: int) -> Mask:
        """Return the mask itself."""
        return self.masks(self.samples[picture].image_HWC, self.prompts[prompt])

    def _make(self, sample: Sample, prompt: str) -> Verdict:
        mask_HW = self.masks(sample.image_HWC, prompt)
        score, dice = math.nan, math.nan
        if self.judge is not None:
            # An empty mask scores 0, whatever the network predicts for it.
            score = self.judge(sample.image_HWC, mask_HW) if mask_HW.any() else 0.0
        if sample.truth_HW is not None:
            dice = overlap(mask_HW, sample.truth_HW).dice
        return Verdict(score, dice)


def worth_of(verdict: Verdict, config: EnvConfig) -> float:
    """Return the reward of a verdict under the reward mode."""
    if config.reward is RewardMode.reward_net:
        return verdict.reward_net
    if config.reward is RewardMode.gt_dice:
        return verdict.gt_dice
    return config.dice_share * verdict.gt_dice + (1 - config.dice_share) * verdict.reward_net


def check_judged(verdicts: Verdicts, mode: RewardMode) -> None:
    """Raise ValueError if the reward mode needs a reward network or true masks that are missing."""
    if mode is not RewardMode.gt_dice and verdicts.judge is None:
        raise ValueError(
            f"reward={mode.value}: needs a reward network; train one by +exp=sa2va_reward_net, or "
            "set ppo.env.reward=gt_dice"
        )
    bare = [sample.name for sample in verdicts.samples if sample.truth_HW is None]
    if mode is not RewardMode.reward_net and bare:
        raise ValueError(
            f"reward={mode.value}: {len(bare)} pictures have no mask, the first {bare[0]}; "
            "set ppo.env.reward=reward_net or add masks"
        )
