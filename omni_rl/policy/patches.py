"""Conversion of frames to the input of Qwen2.5-Omni's vision tower, without torchvision.

Values and order equal those of transformers' `Qwen2VLVideoProcessor` and `Qwen2VLImageProcessor`
for the same uint8 pixels (tested against them).  Frames were resized when they were read
(`omni_rl.data.media`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

Grid = tuple[int, int, int]  # patches along time, height and width


@dataclass(frozen=True)
class PatchSpec:
    """How pixels become patches; the defaults are Qwen2.5-Omni's.

    Attributes:
        patch: side of a patch, in pixels.
        merge: patches on a side that the tower merges into one token.
        temporal: frames in a patch.
        mean: of each RGB channel, full scale 1.
        std: of each RGB channel, full scale 1.
    """

    patch: int = 14
    merge: int = 2
    temporal: int = 2
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    @classmethod
    def of(cls, processor: Qwen2VLImageProcessorPil) -> PatchSpec:
        """Read the values of a transformers image processor of the Qwen2-VL kind."""
        return cls(
            patch=processor.patch_size,
            merge=processor.merge_size,
            temporal=processor.temporal_patch_size,
            mean=tuple(processor.image_mean),
            std=tuple(processor.image_std),
        )

    def num_tokens(self, grid: Grid) -> int:
        """Number of tokens of a grid of patches."""
        steps, rows, columns = grid
        return steps * rows * columns // self.merge**2


def patchify(frames_THWC: np.ndarray, spec: PatchSpec) -> tuple[Tensor, Grid]:
    """Normalise frames and cut them into rows of one patch each.

    Rows run over time, then over blocks of `merge` x `merge` patches, then inside a block; a row
    holds channel, frame, y, x.  An odd last frame is repeated.

    Args:
        frames_THWC: uint8 RGB; a picture is one frame.
        spec: sizes and colour statistics.

    Returns:
        Rows [t * h * w, 3 * temporal * patch * patch] in float32, and their grid (t, h, w).

    Raises:
        ValueError: the frames are no whole number of blocks.
    """
    count, height, width, channels = frames_THWC.shape
    block = spec.patch * spec.merge
    if count == 0 or height % block or width % block or channels != len(spec.mean):
        raise ValueError(
            f"frames of shape {frames_THWC.shape}: expected at least one RGB frame with sides that "
            f"are multiples of {block} pixels"
        )
    if missing := -count % spec.temporal:
        frames_THWC = np.concatenate([frames_THWC, *[frames_THWC[-1:]] * missing])
    frames = torch.from_numpy(np.array(frames_THWC, dtype=np.float32))
    frames = (frames - torch.tensor(spec.mean) * 255) / (torch.tensor(spec.std) * 255)
    steps, rows, columns = len(frames) // spec.temporal, height // spec.patch, width // spec.patch
    split = frames.reshape(
        steps,
        spec.temporal,
        rows // spec.merge,
        spec.merge,
        spec.patch,
        columns // spec.merge,
        spec.merge,
        spec.patch,
        channels,
    )
    # (step, frame, block row, row, y, block column, column, x, channel) becomes
    # (step, block row, block column, row, column, channel, frame, y, x).
    patches = split.permute(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return patches.reshape(steps * rows * columns, -1), (steps, rows, columns)
