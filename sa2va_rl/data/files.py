"""Pictures with or without masks, read from files, and splits that keep a patient on one side.

Frames of one angiography film are near copies of each other: a split by frame would test on what
was trained on.  Splits here are by group: a patient, a film, a generated tree.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, UnidentifiedImageError

from core_rl.config import is_number
from sa2va_rl.config import FILM
from sa2va_rl.data.features import Floats, features_of

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
# Such files ring around edges: what is dark in a mask comes back a little above 0.
LOSSY = (".jpg", ".jpeg", ".webp")
LARGEST = 1e6  # coordinate of a polygon's corner, in pixels
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")


@dataclass(frozen=True)
class Sample:
    """One picture.

    Attributes:
        name: of the file, or of the generated picture.
        image_HWC: RGB, 0 to 255.
        truth_HW: the wanted mask; None for a picture that nobody has drawn on.
        group: patient, film or generated tree; splits never divide it.
        text: what the annotation calls the object, empty where it says nothing.
    """

    name: str
    image_HWC: NDArray[np.uint8]
    truth_HW: NDArray[np.bool_] | None
    group: str
    text: str = ""

    @cached_property
    def features_D(self) -> Floats:  # noqa: N802  # named as arrays are
        """What a policy sees of it: `features.features_of` its pixels, looked at once."""
        return features_of(self.image_HWC)


@dataclass(frozen=True)
class Splits:
    """Samples to learn from, to choose by, and to report once."""

    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...]


def read_annotations(path: Path, images: Path | None = None, group: str = FILM) -> list[Sample]:
    """Read a list of `{"image": file, "mask": [[x1, y1, x2, y2, ...], ...], "text": [...]}`.

    Args:
        path: of `annotations.json`; the masks are polygons in pixels of the picture.
        images: folder of the pictures; None = beside the file.
        group: regular expression on the file name without suffix, whose first bracket is the group.

    Raises:
        FileNotFoundError: the file or a picture is missing.
        ValueError: an entry that cannot be used; the message names it.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no annotations at {path}: give the file, or a folder of pictures without masks"
        )
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of numbers with thousands of digits, too
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path}: expected a list of annotated pictures that is not empty")
    folder = path.parent if images is None else images
    return [
        _annotated(entry, folder, group, f"{path}, entry {index}")
        for index, entry in enumerate(entries)
    ]


def read_folders(images: Path, masks: Path | None = None, group: str = FILM) -> list[Sample]:
    """Read every picture of a folder, with the mask of the same name (any suffix) if asked for.

    Args:
        images: folder of pictures.
        masks: folder of masks, non-zero where the vessel is; None = pictures without masks.
        group: as of `read_annotations`.

    Raises:
        FileNotFoundError: no such folder, no picture in it, or a picture without its mask.
        ValueError: a file that cannot be read, or a mask of another size.
    """
    found = _pictures(images)
    drawn = {} if masks is None else {path.stem: path for path in _pictures(masks)}
    missing = [path.name for path in found if masks is not None and path.stem not in drawn]
    if missing:
        raise FileNotFoundError(
            f"{masks} has no mask for {len(missing)} of {len(found)} pictures, the first "
            f"{missing[0]}: add them, or leave the masks out to use none"
        )
    samples = []
    for path in found:
        image_HWC = read_image(path)
        truth_HW = None if masks is None else read_mask(drawn[path.stem], image_HWC.shape[:2])
        samples.append(Sample(path.name, image_HWC, truth_HW, group_of(path, group)))
    return samples


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read a picture as RGB.

    Pictures of more than 8 bits a pixel are stretched from their darkest to their brightest pixel:
    X-ray machines use 10 or 12 of 16 bits, which would come out black.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a picture, or one with pixels that are no numbers.
    """
    picture = _open(path)
    if picture.mode not in DEEP_MODES:
        return np.asarray(picture.convert("RGB"))
    deep_HW = _finite(picture, path).astype(np.float64)
    low, high = deep_HW.min(), deep_HW.max()
    grey_HW = np.rint((deep_HW - low) / max(high - low, 1e-9) * 255).astype(np.uint8)
    return np.repeat(grey_HW[:, :, None], 3, axis=2)


def read_mask(path: Path, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Read a mask, True where any channel is not 0 (transparency left out).

    Of a lossy file (`LOSSY`), True above half of its brightest pixel: better export masks as PNG.

    Args:
        path: of the mask.
        size: height and width of its picture.

    Raises:
        ValueError: another size, nothing in it, or pixels that are no numbers.
    """
    picture = _open(path)
    if picture.mode not in DEEP_MODES:
        # A palette's first entry need not be black: read colours, not indices.
        picture = picture.convert("RGB")
    values = _finite(picture, path)
    values_HW = values.max(axis=2) if values.ndim == 3 else values
    mask_HW = values_HW > (values_HW.max() / 2 if path.suffix.lower() in LOSSY else 0)
    if mask_HW.shape != tuple(size):
        raise ValueError(
            f"{path} is {mask_HW.shape[1]} x {mask_HW.shape[0]} pixels, its picture "
            f"{size[1]} x {size[0]}: export the mask at the picture's size"
        )
    if not mask_HW.any():
        raise ValueError(f"{path} is empty: leave the picture out or draw its vessels")
    return mask_HW


def fill_polygons(polygons: Any, height: int, width: int, where: str) -> NDArray[np.bool_]:
    """Draw polygons, outline included.

    Args:
        polygons: lists of x1, y1, x2, y2, ... in pixels, three corners at least.
        height: of the picture.
        width: of the picture.
        where: named in errors.

    Raises:
        ValueError: none, one that is no polygon, or none inside the picture.
    """
    if not isinstance(polygons, list) or not polygons:
        raise ValueError(f"{where}: `mask` has no polygon; leave the entry out or draw its vessels")
    canvas = Image.new("1", (width, height))
    pen = ImageDraw.Draw(canvas)
    for index, corners in enumerate(polygons):
        if not _is_polygon(corners):
            raise ValueError(
                f"{where}: polygon {index} of `mask` is {str(corners)[:60]}, expected a list "
                "x1, y1, x2, y2, ... of at least three corners"
            )
        pen.polygon([float(value) for value in corners], fill=1, outline=1)
    mask_HW = np.asarray(canvas, dtype=bool)
    if not mask_HW.any():
        raise ValueError(f"{where}: every polygon of `mask` is outside {width} x {height} pixels")
    return mask_HW


def group_of(path: Path, pattern: str) -> str:
    """Return the group that a file's name tells, with its folder's name before it.

    Folders may be patients whose files are numbered alike, so the same name in two folders is two
    groups: frames of one film belong into one folder.

    Raises:
        ValueError: the pattern has no bracket or does not match.
    """
    try:
        match = re.match(pattern, path.stem)
    except re.error as error:
        raise ValueError(f"group={pattern!r} is not a regular expression: {error}") from error
    if match is None or not match.groups():
        raise ValueError(
            f"group={pattern!r} finds no group in {path.stem!r}: expected a regular expression "
            "whose first bracket is the patient or film"
        )
    return f"{path.parent.name}/{match.group(1)}"


def film_of(group: str) -> str:
    """Return what the file's name tells of a group; the group itself where that is nothing."""
    return group.rpartition("/")[2] or group


def split_by_group(
    samples: Sequence[Sample], val: float = 0.2, test: float = 0.2, seed: int = 0
) -> Splits:
    """Deal whole groups out to train, validation and test.

    Args:
        samples: in any order; the order inside a split stays.
        val: share of groups, above 0.
        test: share of groups, above 0; with `val` below 1.
        seed: of the dealing.

    Raises:
        ValueError: shares that leave nothing, or fewer groups than splits.
    """
    if not (val > 0 and test > 0 and val + test < 1):
        raise ValueError(f"val={val}, test={test}: expected shares above 0 that sum to below 1")
    groups = sorted({sample.group for sample in samples})
    if len(groups) < 3:
        raise ValueError(
            f"{len(samples)} pictures are of {len(groups)} group(s) {groups}: a split needs three; "
            "set `group` to a pattern that finds the patient in a file's name"
        )
    order = [groups[index] for index in np.random.default_rng(seed).permutation(len(groups))]
    # At least one group each, and no more than leaves one to train on.
    num_val = min(max(1, math.floor(val * len(order) + 0.5)), len(order) - 2)
    num_test = min(max(1, math.floor(test * len(order) + 0.5)), len(order) - 1 - num_val)
    parts = order[num_val + num_test :], order[:num_val], order[num_val : num_val + num_test]
    train, held_val, held_test = (
        tuple(sample for sample in samples if sample.group in set(part)) for part in parts
    )
    return Splits(train, held_val, held_test)


def _annotated(entry: Any, folder: Path, group: str, where: str) -> Sample:
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
        raise ValueError(f"{where}: expected an object with `image`, a file name")
    path = folder / entry["image"]
    image_HWC = read_image(path)
    height, width = image_HWC.shape[:2]
    truth_HW = fill_polygons(entry.get("mask"), height, width, f"{where} ({path.name})")
    text = entry.get("text", "")
    if isinstance(text, list):
        text = ", ".join(str(item) for item in text)
    return Sample(entry["image"], image_HWC, truth_HW, group_of(path, group), str(text))


def _is_polygon(corners: Any) -> bool:
    return (
        isinstance(corners, list)
        and len(corners) >= 6
        and len(corners) % 2 == 0
        and all(is_number(value) and abs(value) <= LARGEST for value in corners)
    )


def _pictures(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise FileNotFoundError(f"no picture in {folder}: expected files {', '.join(SUFFIXES)}")
    return found


def _finite(picture: Image.Image, path: Path) -> NDArray[Any]:
    values = np.asarray(picture)
    if not np.isfinite(values).all():
        raise ValueError(f"{path} has pixels that are NaN or infinite: replace them by numbers")
    return values


def _open(path: Path) -> Image.Image:
    if not path.is_file():
        raise FileNotFoundError(f"no picture at {path}")
    try:
        picture = Image.open(path)
        picture.load()
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error
    return picture
