"""Training examples of the reward network: masks of every prompt, true and corrupted masks.

A network that is trained on one prompt's masks alone may rank pictures well and yet not the masks
of one picture; without corrupted masks it scores an all-white mask highest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from sa2va_rl.data.files import Sample
from sa2va_rl.rewards.verdicts import Masks
from sa2va_rl.segmenters.mask_cache import Mask, Overlap, corrupted, overlap

TRUTH = "truth"


@dataclass(frozen=True)
class Pair:
    """One mask of one picture, with its label.

    Attributes:
        picture: index of the picture among the samples.
        kind: the prompt, `truth`, or the kind of corruption.
        mask_HW: the mask.
        label: quality in [0, 1].
    """

    picture: int
    kind: str
    mask_HW: Mask
    label: float


def label_of(found: Overlap, weights: Mapping[str, float]) -> float:
    """Return the weighted sum of an overlap's measures (see `RewardNetConfig.label`)."""
    measures = asdict(found)
    return float(sum(weight * measures[name] for name, weight in weights.items()))


def prompt_pairs(
    samples: Sequence[Sample], prompts: Sequence[str], masks: Masks, weights: Mapping[str, float]
) -> Iterator[Pair]:
    """Label the mask of every prompt for every picture.

    Raises:
        ValueError: a picture has no true mask.
    """
    for picture, sample in enumerate(samples):
        truth_HW = _truth(sample)
        for prompt in prompts:
            mask_HW = masks(sample.image_HWC, prompt)
            yield Pair(picture, prompt, mask_HW, label_of(overlap(mask_HW, truth_HW), weights))


def probe_pairs(
    samples: Sequence[Sample], weights: Mapping[str, float], seed: int = 0
) -> Iterator[Pair]:
    """Label the true mask, its corrupted versions and a foreign mask for every picture.

    Args:
        samples: the foreign mask is the true mask of the next picture of equal size and another
            group; a split without such a picture has no foreign masks.
        weights: of the label.
        seed: of the corruption.

    Raises:
        ValueError: a picture has no true mask.
    """
    rng = np.random.default_rng(seed)
    for picture, sample in enumerate(samples):
        truth_HW = _truth(sample)
        foreign_HW = _next_truth(samples, picture)
        masks = {TRUTH: truth_HW, **corrupted(truth_HW, rng)}
        if foreign_HW is not None:
            masks["foreign"] = foreign_HW
        for kind, mask_HW in masks.items():
            yield Pair(picture, kind, mask_HW, label_of(overlap(mask_HW, truth_HW), weights))


def _truth(sample: Sample) -> Mask:
    if sample.truth_HW is None:
        raise ValueError(
            f"{sample.name} has no mask: the reward network is trained on pictures with masks; "
            "only the policy can learn without"
        )
    return sample.truth_HW


def _next_truth(samples: Sequence[Sample], picture: int) -> Mask | None:
    own = samples[picture]
    for step in range(1, len(samples)):
        other = samples[(picture + step) % len(samples)]
        if other.group != own.group and other.image_HWC.shape == own.image_HWC.shape:
            return _truth(other)
    return None
