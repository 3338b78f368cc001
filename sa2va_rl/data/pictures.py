"""Picture and mask files of many programs, decoded to arrays."""

from __future__ import annotations

import logging
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

log = logging.getLogger(__name__)

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"),
    *(".gif", ".ppm", ".pgm", ".pbm"),
)
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
# Percentiles that become black and white in a deep picture: a defective pixel must not set them.
DARKEST, BRIGHTEST = 0.1, 99.9
VOID = (224, 224, 192)  # border of unknown class in masks of Pascal VOC


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read a picture as RGB, turned upright as its EXIF orientation says.

    Pictures of more than 8 bits are stretched from their 0.1st to their 99.9th percentile, because
    X-ray machines use only 10 or 12 of 16 bits.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a picture, several pages, or pixels that are NaN or infinite.
    """
    picture, _ = _open(path)
    if picture.mode not in DEEP_MODES:
        return np.asarray(picture.convert("RGB"))
    deep_HW = _finite(picture, path).astype(np.float64)
    low, high = np.percentile(deep_HW, (DARKEST, BRIGHTEST))
    share_HW = np.clip((deep_HW - low) / max(high - low, 1e-9), 0, 1)
    grey_HW = np.rint(share_HW * 255).astype(np.uint8)
    return np.repeat(grey_HW[:, :, None], 3, axis=2)


def read_mask(path: Path, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Read a mask, turned upright as its EXIF orientation says.

    A pixel belongs to the mask if any colour channel is above 0; in a lossy file, whose edges ring,
    if it is above half of the brightest value.  Transparent pixels do not belong to it, nor does
    the void border of Pascal VOC.  Where everything visible is black, the visible is the mask.

    Args:
        path: of the mask.
        size: height and width of its picture.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a picture, several pages, another size, an empty mask, or pixels that are
            NaN or infinite.
    """
    picture, lossy = _open(path)
    values_HW = _mask_values(picture, path)
    mask_HW = values_HW > (values_HW.max() / 2 if lossy else 0)
    if mask_HW.shape != tuple(size):
        raise ValueError(
            f"{path} is {mask_HW.shape[1]} x {mask_HW.shape[0]} pixels, its picture "
            f"{size[1]} x {size[0]}: export the mask at the picture's size"
        )
    if not mask_HW.any():
        raise ValueError(f"{path} is empty: leave the picture out or draw its vessels")
    return mask_HW


def _mask_values(picture: Image.Image, path: Path) -> NDArray[Any]:
    """Return a value HW for each pixel, 0 outside the mask."""
    if picture.mode in DEEP_MODES:
        return _finite(picture, path)
    # The first entry of a palette need not be black, so colours are read, not indices.
    rgba_HWC = np.asarray(picture.convert("RGBA"))
    values_HW = rgba_HWC[..., :3].max(axis=2)
    visible_HW = rgba_HWC[..., 3] > 0
    if visible_HW.any() and not visible_HW.all():
        drawn_in_black = not values_HW[visible_HW].any()
        values_HW = np.where(visible_HW, 255 if drawn_in_black else values_HW, 0)
    return np.where((rgba_HWC[..., :3] == VOID).all(axis=2), 0, values_HW)


def _is_lossy(picture: Image.Image, path: Path) -> bool:
    """Tell from a file's content whether its compression changes pixels."""
    if picture.format == "TIFF":
        return "jpeg" in str(picture.info.get("compression"))
    return picture.format in ("JPEG", "MPO") or (picture.format == "WEBP" and _is_lossy_webp(path))


def _is_lossy_webp(path: Path) -> bool:
    """Find the first chunk of pixels: `VP8L` is lossless, `VP8 ` is not."""
    content = path.read_bytes()
    place = 12  # after `RIFF`, the size and `WEBP`
    while place + 8 <= len(content):
        name, length = struct.unpack_from("<4sI", content, place)
        if name in (b"VP8 ", b"VP8L"):
            return bool(name == b"VP8 ")
        place += 8 + length + length % 2
    return True


def _finite(picture: Image.Image, path: Path) -> NDArray[Any]:
    values = np.asarray(picture)
    if not np.isfinite(values).all():
        raise ValueError(f"{path} has pixels that are NaN or infinite: replace them by numbers")
    return values


def _open(path: Path) -> tuple[Image.Image, bool]:
    """Decode a picture and turn it upright; also return whether its compression changes pixels."""
    try:
        if not path.is_file():
            raise FileNotFoundError(f"no picture at {path}")
        stored = Image.open(path)
        stored.load()
        lossy = _is_lossy(stored, path)
        # A phone's JPEG (MPO) has a second frame, which is a preview.
        pages = 1 if stored.format == "MPO" else getattr(stored, "n_frames", 1)
    except FileNotFoundError:
        raise
    except Exception as error:  # decoders raise errors of many kinds on damaged files
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error
    if pages > 1:
        raise ValueError(f"{path} has {pages} pages: save each as a file of its own")
    return _upright(stored), lossy


def _upright(picture: Image.Image) -> Image.Image:
    """Follow the EXIF orientation; viewers ignore a damaged EXIF block, and so does this."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception as error:  # of many kinds, as in `_open`
        log.warning("EXIF orientation of %s ignored: %s", getattr(picture, "filename", ""), error)
        return picture
