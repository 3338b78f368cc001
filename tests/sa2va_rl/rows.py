"""A segmenter whose masks are solved by hand, with pictures, truths and a judge to match."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sa2va_rl.data.files import Sample
from sa2va_rl.prompts import PROMPTS
from sa2va_rl.segmenters.mask_cache import Mask

SIDE = 16


class Rows:
    """A segmenter whose mask is the first rows, as many as the prompt's place plus one."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image_HWC: NDArray[np.uint8], prompt: str) -> Mask:
        self.calls += 1
        mask_HW = np.zeros(image_HWC.shape[:2], dtype=bool)
        mask_HW[: PROMPTS.index(prompt)] = True
        return mask_HW


def share(image_HWC: NDArray[np.uint8], mask_HW: Mask) -> float:
    """A judge: share of the picture that the mask covers, so prompt k is worth k / 16."""
    return float(mask_HW.mean())


def samples(count: int = 5, truth: bool = True) -> list[Sample]:
    found = []
    for index in range(count):
        rng = np.random.default_rng(index)
        image_HWC = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        truth_HW = np.zeros((SIDE, SIDE), dtype=bool)
        truth_HW[: index + 1] = True
        found.append(Sample(f"s{index}", image_HWC, truth_HW if truth else None, f"g{index}"))
    return found
