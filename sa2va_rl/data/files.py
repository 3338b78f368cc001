"""Pictures with or without masks, read from files, and splits by patient or film.

Frames of one angiography film are nearly equal, so a split by frame would test on training data.
Splits here are by group: a patient, a film, a generated tree.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core_rl.bad_records import Skips
from core_rl.config import OnBadRecord
from sa2va_rl.config import Sa2VADataConfig
from sa2va_rl.data.features import Floats, features_of
from sa2va_rl.data.pictures import SUFFIXES, read_image, read_mask
from sa2va_rl.data.polygons import fill_polygons

log = logging.getLogger(__name__)

LARGE = 0.6  # share of a picture above which a mask is suspicious
Entries = list[tuple[str, Mapping[str, Any]]]  # where an entry stands, and the entry


@dataclass(frozen=True)
class Sample:
    """One picture.

    Attributes:
        name: of the file, or of the generated picture.
        image_HWC: RGB, 0 to 255.
        truth_HW: the true mask; None for a picture without one.
        group: patient, film or generated tree, which splits never divide.
        text: the annotation's name of the object; empty without one.
    """

    name: str
    image_HWC: NDArray[np.uint8]
    truth_HW: NDArray[np.bool_] | None
    group: str
    text: str = ""

    @cached_property
    def features_D(self) -> Floats:  # noqa: N802  # named as arrays are
        """The features of `features.features_of`, computed once."""
        return features_of(self.image_HWC)


@dataclass(frozen=True)
class Splits:
    """Samples for training, for choices between models, and for the report."""

    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...]


def read_annotations(config: Sa2VADataConfig) -> list[Sample]:
    """Read `data_mix.path`, a list of `{"image": file, "mask": polygons, "text": [...]}`.

    `mask` is a list of polygons, or, as in Sa2VA's own files, a list of objects that are lists of
    polygons.  Entries of one picture are united.

    Raises:
        FileNotFoundError: the file or a picture is missing.
        ValueError: an entry that cannot be used, or none that can; the message names it.
    """
    assert config.path is not None
    path = Path(config.path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no annotations at {path}: give the file, or a folder of pictures without masks"
        )
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # of numbers with thousands of digits, too
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path}: expected a list of annotated pictures that is not empty")
    folder = path.parent if config.images is None else Path(config.images)
    skips, pictures = Skips(config.on_bad_record), dict[Path, Entries]()
    for index, entry in enumerate(entries):
        where = f"{path}, entry {index}"
        if isinstance(entry, dict) and isinstance(entry.get("image"), str) and entry["image"]:
            image = Path(os.path.normpath(folder / entry["image"]))
            pictures.setdefault(image, []).append((f"{where} ({image.name})", entry))
        else:
            skips.add(ValueError(f"{where}: expected an object with `image`, a file name"))
    samples = []
    for image, found in pictures.items():
        try:
            samples.append(_annotated(image, found, config))
        except (ValueError, OSError) as error:
            skips.add(error)
    if len(pictures) < len(entries) - skips.count:
        log.info("%s: the masks of entries of one picture are united", path)
    return _usable(samples, skips, path)


def read_folders(images: Path, masks: Path | None, config: Sa2VADataConfig) -> list[Sample]:
    """Read every picture of a folder and its subfolders, with its mask if asked for.

    Args:
        images: folder of pictures.
        masks: folder of masks, named by `data_mix.mask_name` and in subfolders of the same names;
            None = pictures without masks.
        config: of the data.

    Raises:
        FileNotFoundError: no such folder, no picture in it, or a picture without its mask.
        ValueError: a file that cannot be read, a mask of another size, or two masks of one name.
    """
    skips, samples = Skips(config.on_bad_record), []
    for path, mask in _with_masks(images, masks, config, skips):
        try:
            image_HWC = read_image(path)
            truth_HW = None if mask is None else read_mask(mask, image_HWC.shape[:2])
            name = path.relative_to(images).as_posix()
            samples.append(Sample(name, image_HWC, truth_HW, group_of(path, config.group)))
        except (ValueError, OSError) as error:
            skips.add(error)
    return _usable(samples, skips, images)


def group_of(path: Path, pattern: str) -> str:
    """Return the group in a file's name, with the folder's name before it.

    Folders may be patients with equal file names, so one name in two folders is two groups: the
    frames of a film have to be in one folder.

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
    """Return the part of a group that stems from the file's name, or the group without one."""
    return group.rpartition("/")[2] or group


def split_by_group(
    samples: Sequence[Sample], val: float = 0.2, test: float = 0.2, seed: int = 0
) -> Splits:
    """Assign whole groups to training, validation and test.

    Args:
        samples: in any order, which is kept inside a split.
        val: share of groups, above 0.
        test: share of groups, above 0; `val + test` is below 1.
        seed: of the random order of groups.

    Raises:
        ValueError: shares that leave no training group, or fewer groups than splits.
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
    # At least one group for each split.
    num_val = min(max(1, math.floor(val * len(order) + 0.5)), len(order) - 2)
    num_test = min(max(1, math.floor(test * len(order) + 0.5)), len(order) - 1 - num_val)
    parts = order[num_val + num_test :], order[:num_val], order[num_val : num_val + num_test]
    train, held_val, held_test = (
        tuple(sample for sample in samples if sample.group in set(part)) for part in parts
    )
    return Splits(train, held_val, held_test)


def _annotated(path: Path, entries: Entries, config: Sa2VADataConfig) -> Sample:
    """Read a picture and unite the masks and texts of its entries."""
    name = entries[0][1]["image"]
    if config.images is None and not os.path.isfile(path):
        # Sa2VA's own layout has the pictures in `images/` beside the file.
        inside = Path(config.path or "").parent / "images" / name
        path = inside if os.path.isfile(inside) else path
    image_HWC = read_image(path)
    truth_HW = np.zeros(image_HWC.shape[:2], dtype=bool)
    texts = []
    for where, entry in entries:
        rule, corners = config.polygon_rule, config.corners
        truth_HW |= fill_polygons(entry.get("mask"), truth_HW.shape, where, rule, corners)
        text = entry.get("text", "")
        texts += [str(item) for item in (text if isinstance(text, list) else [text])]
    text = ", ".join(dict.fromkeys(filter(None, texts)))
    return Sample(name, image_HWC, truth_HW, group_of(path, config.group), text)


def _usable(samples: list[Sample], skips: Skips, path: Path) -> list[Sample]:
    """Report skipped and suspicious pictures; refuse to go on with none."""
    skips.report(path)
    if not samples:
        beside = "pictures and masks have the same names in one folder: set data_mix.mask_name"
        first = skips.messages[0] if skips.count else beside
        raise ValueError(f"{path}: no picture can be used; {first}")
    shares = {s.name: float(s.truth_HW.mean()) for s in samples if s.truth_HW is not None}
    large = {name: share for name, share in shares.items() if share > LARGE}
    if large:
        name, share = next(iter(large.items()))
        log.warning(
            "%s: %d of %d masks cover more than %.0f %% of their picture, the first %s with %.0f "
            "%%: look whether they are inverted, or white all over",
            *(path, len(large), len(shares), 100 * LARGE, name, 100 * share),
        )
    return samples


def _pictures(folder: Path) -> list[Path]:
    """List the pictures of a folder and its subfolders; hidden files, as macOS's `._a.png`, not."""
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not found:
        raise FileNotFoundError(f"no picture in {folder}: expected files {', '.join(SUFFIXES)}")
    return found


def _with_masks(
    images: Path, masks: Path | None, config: Sa2VADataConfig, skips: Skips
) -> list[tuple[Path, Path | None]]:
    """Return each picture of a folder with its mask, or None if masks are not asked for."""
    pictures = _pictures(images)
    if masks is None:
        return [(path, None) for path in pictures]
    keys = {path: _mask_key(path, images, config.mask_name) for path in pictures}
    drawn = _by_key(masks, set(keys.values()))
    found = {path: drawn.get(key) for path, key in keys.items()}
    if images.resolve() in (masks.resolve(), *masks.resolve().parents):
        # Masks lie beside their pictures.
        found = {path: mask for path, mask in found.items() if path not in found.values()}
    missing = [path for path, mask in found.items() if mask is None]
    where = f"{masks} has no mask named {config.mask_name!r} for"
    if missing and config.on_bad_record is OnBadRecord.error:
        raise FileNotFoundError(
            f"{where} {len(missing)} of {len(found)} pictures, the first {missing[0].name}: add "
            "them, set data_mix.mask_name, or leave the masks out to use none"
        )
    for path in missing:
        skips.add(FileNotFoundError(f"{where} {path.name}"))
    return [(path, mask) for path, mask in found.items() if mask is not None]


def _mask_key(path: Path, folder: Path, mask_name: str) -> str:
    """Return the path of a picture's mask inside the folder of masks, without suffix."""
    number = re.search(r"\d+", path.stem)
    name = mask_name.format(stem=path.stem, number=number.group() if number else "")
    return f"{path.relative_to(folder).parent.as_posix()}/{name}"


def _by_key(folder: Path, wanted: set[str]) -> dict[str, Path]:
    """Find the wanted masks by their path inside a folder, without suffix.

    Raises:
        ValueError: two masks have one name.
    """
    found: dict[str, Path] = {}
    for path in _pictures(folder):
        key = f"{path.relative_to(folder).parent.as_posix()}/{path.stem}"
        if key in wanted and found.setdefault(key, path) != path:
            raise ValueError(f"{found[key]} and {path} are masks of one name: remove one")
    return found
