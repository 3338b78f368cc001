"""A choice solved by hand: dark pictures want the first prompt, bright ones the last."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sa2va_rl.data.files import Sample
from sa2va_rl.policy.saved import PromptPolicy
from sa2va_rl.segmenters.mask_cache import Mask

PROMPTS = ("dark", "middle", "bright")
SIDE = 12


def pictures(count: int, first: int = 0, truth: bool = True) -> list[Sample]:
    """Half dark, half bright."""
    found = []
    for index in range(first, first + count):
        rng = np.random.default_rng(index)
        image_HWC = rng.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
        image_HWC += np.uint8(160 * (index % 2))
        truth_HW = np.zeros((SIDE, SIDE), dtype=bool)
        truth_HW[:6] = True
        found.append(Sample(f"p{index}", image_HWC, truth_HW if truth else None, f"g{index}"))
    return found


def masks(image_HWC: NDArray[np.uint8], prompt: str) -> Mask:
    """Right where prompt and picture agree; half right under the middle prompt."""
    mask_HW = np.zeros((SIDE, SIDE), dtype=bool)
    right = ("dark", "bright")[int(image_HWC.mean() > 100)]
    mask_HW[: {right: 6, "middle": 3}.get(prompt, 0)] = True
    return mask_HW


def judge(image_HWC: NDArray[np.uint8], mask_HW: Mask) -> float:
    return float(mask_HW[:6].mean())


def right_share(policy: PromptPolicy) -> float:
    """Share of unseen pictures for which a policy names the right prompt."""
    unseen = pictures(10, first=200)
    chosen = [policy.prompts[policy.look_at(sample.image_HWC).place] for sample in unseen]
    wanted = ["dark", "bright"] * 5
    return float(np.mean([name == right for name, right in zip(chosen, wanted, strict=True)]))
