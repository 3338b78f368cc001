"""Masks: a cache on disk, overlap with the true mask, and corrupted masks for training."""

from __future__ import annotations

import hashlib
import logging
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from core_rl.files import atomically
from sa2va_rl.segmenters.models import Segmenter, single_mask

log = logging.getLogger(__name__)

Mask = NDArray[np.bool_]
HEADER = struct.Struct("<II")  # height and width; one bit a pixel follows


class MaskCache:
    """Call the segmenter once for each picture and prompt, and store its mask on disk.

    The path of a mask contains the segmenter's fingerprint and hashes of the picture's pixels and
    of the prompt, so a stored mask is never out of date.  Processes may share a folder.

    Args:
        segmenter: makes the masks.
        folder: of the masks; made when the first is stored.

    Attributes:
        calls: number of segmenter calls of this object.
        reads: number of masks that were read from disk instead.
    """

    def __init__(self, segmenter: Segmenter, folder: Path) -> None:
        self.segmenter = segmenter
        self.folder = folder / segmenter.fingerprint
        self.calls = 0
        self.reads = 0

    def __call__(self, image_HWC: NDArray[np.uint8], prompt: str) -> Mask:
        """Return the mask HW of a picture under a prompt."""
        height, width = image_HWC.shape[:2]
        path = self._path(image_HWC, prompt)
        stored = _read(path, height, width)
        if stored is not None:
            self.reads += 1
            return stored
        self.calls += 1
        answer = self.segmenter.predict_forward(Image.fromarray(image_HWC), prompt)
        mask_HW = single_mask(answer, height, width)
        _write(path, mask_HW)
        return mask_HW

    def _path(self, image_HWC: NDArray[np.uint8], prompt: str) -> Path:
        picture = hashlib.sha256(str(image_HWC.shape).encode())
        picture.update(np.ascontiguousarray(image_HWC).data)
        text = hashlib.sha256(prompt.encode()).hexdigest()
        name = picture.hexdigest()
        return self.folder / name[:2] / f"{name[:32]}-{text[:16]}.mask"


def _read(path: Path, height: int, width: int) -> Mask | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    size = HEADER.size + (height * width + 7) // 8
    if len(content) != size or HEADER.unpack_from(content) != (height, width):
        log.warning("%s is damaged; the segmenter is called again", path)
        return None
    bits = np.frombuffer(content, dtype=np.uint8, offset=HEADER.size)
    return np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool)


def _write(path: Path, mask_HW: Mask) -> None:
    with atomically(path) as beside:
        beside.write_bytes(HEADER.pack(*mask_HW.shape) + np.packbits(mask_HW).tobytes())


@dataclass(frozen=True)
class Overlap:
    """Agreement of a mask with the true mask; each measure in [0, 1]."""

    dice: float
    iou: float
    precision: float
    recall: float


def overlap(mask_HW: Mask, truth_HW: Mask) -> Overlap:
    """Compare a mask with the true mask.

    If both are empty, every measure is 1; if only one is empty, every measure is 0.

    Raises:
        ValueError: the masks differ in size.
    """
    if mask_HW.shape != truth_HW.shape:
        raise ValueError(f"mask {mask_HW.shape}, truth {truth_HW.shape}: expected equal shapes")
    found, wanted = int(mask_HW.sum()), int(truth_HW.sum())
    if found == 0 and wanted == 0:
        return Overlap(1.0, 1.0, 1.0, 1.0)
    both = int((mask_HW & truth_HW).sum())
    return Overlap(
        dice=2 * both / (found + wanted),
        iou=both / (found + wanted - both),
        precision=both / max(found, 1),
        recall=both / max(wanted, 1),
    )


def corrupted(truth_HW: Mask, rng: np.random.Generator) -> dict[str, Mask]:
    """Make corrupted masks, low-scoring training examples of the reward network.

    A network that is trained on a segmenter's masks alone scores an all-white mask highest.

    Args:
        truth_HW: the true mask.
        rng: draws the pixels of dilation (1 to 4), erosion (1 or 2) and shift (4 to 12).
    """
    angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(4, 12)
    down, right = round(distance * np.sin(angle)), round(distance * np.cos(angle))
    grow, shrink = int(rng.integers(1, 5)), int(rng.integers(1, 3))
    return {
        "empty": np.zeros_like(truth_HW),
        "full": np.ones_like(truth_HW),
        "dilated": ndimage.binary_dilation(truth_HW, iterations=grow),
        "eroded": ndimage.binary_erosion(truth_HW, iterations=shrink),
        "shifted": shifted(truth_HW, down, right),
    }


def shifted(mask_HW: Mask, down: int, right: int) -> Mask:
    """Shift a mask; pixels beyond the picture's edge are lost, empty ones enter."""
    height, width = mask_HW.shape
    down, right = int(np.clip(down, -height, height)), int(np.clip(right, -width, width))
    moved_HW = np.zeros_like(mask_HW)
    kept_HW = mask_HW[max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)]
    moved_HW[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = kept_HW
    return moved_HW
