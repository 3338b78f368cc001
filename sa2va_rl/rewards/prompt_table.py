"""Every prompt measured on every picture: the table from which choices are evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from sa2va_rl.data.files import Sample
from sa2va_rl.rewards.reward_net import RewardNetJudge
from sa2va_rl.rewards.verdicts import Masks
from sa2va_rl.segmenters.mask_cache import overlap

Floats = NDArray[np.float64]

MEASURES = ("dice", "iou", "precision", "recall", "accuracy")


@dataclass(frozen=True)
class PromptTable:
    """B pictures under K prompts.

    Attributes:
        samples: the pictures.
        features_BD: of `features.features_of`, not standardised.
        measures_BK: by name (`MEASURES`), each in [0, 1]; NaN for a picture without a mask.
        score_BK: of the reward network; NaN without one.
    """

    samples: tuple[Sample, ...]
    features_BD: NDArray[np.float32]
    measures_BK: dict[str, Floats]
    score_BK: Floats

    @property
    def dice_BK(self) -> Floats:  # noqa: N802  # named as arrays are
        """Dice with the true masks."""
        return self.measures_BK["dice"]

    @property
    def has_truth(self) -> bool:
        return not bool(np.isnan(self.dice_BK).any())


def measure_prompts(
    samples: Sequence[Sample],
    prompts: Sequence[str],
    masks: Masks,
    judge: RewardNetJudge | None = None,
) -> PromptTable:
    """Measure the mask of every prompt on every picture.

    Args:
        samples: pictures, with or without true masks.
        prompts: texts.
        masks: makes or reads the masks.
        judge: the reward network; without one, scores are NaN.
    """
    shape = len(samples), len(prompts)
    measures = {name: np.full(shape, np.nan) for name in MEASURES}
    score_BK = np.full(shape, np.nan)
    for b, sample in enumerate(samples):
        found = [masks(sample.image_HWC, prompt) for prompt in prompts]
        if judge is not None:
            # An empty mask scores 0, as in `Verdicts`.
            scores = judge.many(sample.image_HWC, found)
            score_BK[b] = [s if mask.any() else 0.0 for s, mask in zip(scores, found, strict=True)]
        if sample.truth_HW is None:
            continue
        for k, mask_HW in enumerate(found):
            for name, value in asdict(overlap(mask_HW, sample.truth_HW)).items():
                measures[name][b, k] = value
            measures["accuracy"][b, k] = (mask_HW == sample.truth_HW).mean()
    features_BD = np.stack([sample.features_D for sample in samples])
    return PromptTable(tuple(samples), features_BD, measures, score_BK)
