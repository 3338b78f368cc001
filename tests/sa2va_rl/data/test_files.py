"""Files that can be read, files that cannot, and splits by patient."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sa2va_rl.data.files import (
    Sample,
    fill_polygons,
    group_of,
    read_annotations,
    read_folders,
    read_image,
    read_mask,
    split_by_group,
)

SQUARE = [2, 2, 5, 2, 5, 5, 2, 5]


def picture(path: Path, height: int = 8, width: int = 12) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, dtype=np.uint8)).save(path)
    return path


def annotations(folder: Path, entries: Any) -> Path:
    path = folder / "annotations.json"
    path.write_text(json.dumps(entries))
    return path


def test_annotated_pictures(tmp_path: Path) -> None:
    picture(tmp_path / "film3_0007.png")
    path = annotations(
        tmp_path, [{"image": "film3_0007.png", "mask": [SQUARE], "text": ["blood vessel"]}]
    )
    (sample,) = read_annotations(path)
    assert sample.image_HWC.shape == (8, 12, 3)
    assert sample.truth_HW is not None
    assert sample.truth_HW.sum() == 16  # corners included
    assert sample.truth_HW[2:6, 2:6].all()
    assert (sample.text, sample.group) == ("blood vessel", f"{tmp_path.name}/film3")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "list of annotated pictures that is not empty"),
        ({"image": "a.png"}, "expected a list"),
        ([{"mask": [SQUARE]}], "entry 0: expected an object with `image`"),
        ([{"image": "a.png"}], r"entry 0 \(a.png\): `mask` has no polygon"),
        ([{"image": "a.png", "mask": []}], "has no polygon"),
        ([{"image": "a.png", "mask": [[]]}], "at least three corners"),
        ([{"image": "a.png", "mask": [[1, 1, 2, 2]]}], "polygon 0 of `mask`"),
        ([{"image": "a.png", "mask": [[*SQUARE, 1]]}], "at least three corners"),
        ([{"image": "a.png", "mask": [[1, 1, 2, 2, "3", 3]]}], "at least three corners"),
        ([{"image": "a.png", "mask": [[1, 1, 2, 2, 10**400, 3]]}], r"entry 0 \(a.png\): polygon 0"),
        ([{"image": "a.png", "mask": [[1, 1, 2, 2, -(10**12), 3]]}], "at least three corners"),
        ([{"image": "a.png", "mask": [[1, 1, 2, 2, float("nan"), 3]]}], "at least three corners"),
        ([{"image": "a.png", "mask": [[1, 1, 2, 2, True, 3]]}], "at least three corners"),
        ([{"image": "a.png", "mask": [[90, 90, 95, 90, 95, 95]]}], "outside 12 x 8"),
    ],
)
def test_entries_that_cannot_be_used(tmp_path: Path, entries: Any, message: str) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match=message):
        read_annotations(annotations(tmp_path, entries))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no annotations at .*annotations\.json"):
        read_annotations(tmp_path / "annotations.json")
    with pytest.raises(FileNotFoundError, match=r"b\.png"):
        read_annotations(annotations(tmp_path, [{"image": "b.png", "mask": [SQUARE]}]))
    with pytest.raises(FileNotFoundError, match="no picture in"):
        read_folders(tmp_path / "nowhere")


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    for text in ("[{", "1" * 5000):
        (tmp_path / "annotations.json").write_text(text)
        with pytest.raises(ValueError, match=r"annotations\.json is not JSON"):
            read_annotations(tmp_path / "annotations.json")
    whole = picture(tmp_path / "a.png", 64, 64).read_bytes()
    for content in (b"", b"no picture", whole[: len(whole) // 2]):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.png cannot be read as a picture"):
            read_image(tmp_path / "a.png")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_named(tmp_path: Path, value: float) -> None:
    pixels = np.ones((8, 12), dtype=np.float32)
    pixels[3, 4] = value
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif has pixels that are NaN or infinite"):
        read_image(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif has pixels that are NaN or infinite"):
        read_mask(tmp_path / "a.tif", (8, 12))


def test_folders_pair_by_name(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "p1_1.jpg")
    mask = np.zeros((8, 12), dtype=np.uint8)
    mask[3, 4:7] = 255
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / "p1_1.png")
    (sample,) = read_folders(tmp_path / "images", tmp_path / "masks")
    assert sample.truth_HW is not None
    np.testing.assert_array_equal(sample.truth_HW, mask > 0)
    picture(tmp_path / "images" / "p2_1.jpg")
    with pytest.raises(
        FileNotFoundError, match=r"no mask for 1 of 2 pictures, the first p2_1\.jpg"
    ):
        read_folders(tmp_path / "images", tmp_path / "masks")


def test_pictures_without_masks(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    assert [sample.truth_HW for sample in read_folders(tmp_path)] == [None]


def test_masks_that_do_not_fit(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 6), dtype=np.uint8)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match=r"small\.png is 6 x 4 pixels, its picture 12 x 8"):
        read_mask(tmp_path / "small.png", (8, 12))
    Image.fromarray(np.zeros((8, 12), dtype=np.uint8)).save(tmp_path / "none.png")
    with pytest.raises(ValueError, match=r"none\.png is empty"):
        read_mask(tmp_path / "none.png", (8, 12))


def test_a_mask_with_transparency_or_palette(tmp_path: Path) -> None:
    values = np.zeros((8, 12, 4), dtype=np.uint8)
    values[..., 3] = 255
    values[2, 3, 0] = 1
    Image.fromarray(values).save(tmp_path / "rgba.png")
    assert read_mask(tmp_path / "rgba.png", (8, 12)).sum() == 1
    Image.fromarray(values[..., :3]).quantize(4).save(tmp_path / "palette.png")
    assert read_mask(tmp_path / "palette.png", (8, 12)).sum() == 1


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".webp"])
def test_a_thin_line_survives_a_lossy_file(tmp_path: Path, suffix: str) -> None:
    truth_HW = np.zeros((48, 64), dtype=bool)
    truth_HW[20:22, 5:60] = truth_HW[5:40, 30:32] = True
    path = tmp_path / f"mask{suffix}"
    Image.fromarray(truth_HW.astype(np.uint8) * 255).save(path)
    assert (np.asarray(Image.open(path).convert("L")) > 0).sum() > truth_HW.sum()
    np.testing.assert_array_equal(read_mask(path, truth_HW.shape), truth_HW)


@pytest.mark.parametrize("kind", ["L", "RGBA", "I;16"])
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, kind: str) -> None:
    ramp = np.arange(96).reshape(8, 12)
    if kind == "I;16":
        Image.fromarray((ramp * 40).astype(np.uint16)).save(tmp_path / "a.png")  # 12 bits
    else:
        Image.fromarray(ramp.astype(np.uint8)).convert(kind).save(tmp_path / "a.png")
    image_HWC = read_image(tmp_path / "a.png")
    assert image_HWC.shape == (8, 12, 3)
    assert image_HWC.dtype == np.uint8
    np.testing.assert_array_equal(image_HWC[..., 0], image_HWC[..., 2])
    assert image_HWC.max() == (255 if kind == "I;16" else 95)  # deep pictures are stretched


def test_polygons_join() -> None:
    moved = [value + 3 * (1 - index % 2) for index, value in enumerate(SQUARE)]  # 3 to the right
    assert fill_polygons([SQUARE, moved], 8, 12, "here").sum() == 28


@pytest.mark.parametrize(
    ("name", "pattern", "group"),
    [
        ("film3_0007.png", r"(.*?)[-_ .]*\d*$", "f/film3"),
        ("still.png", r"(.*?)[-_ .]*\d*$", "f/still"),
        ("a_b_7.png", r"([^_]+)_", "f/a"),
    ],
)
def test_groups_from_names(name: str, pattern: str, group: str) -> None:
    assert group_of(Path("f") / name, pattern) == group


@pytest.mark.parametrize("pattern", ["x(.*)", ".*", "("])
def test_patterns_that_find_no_group(pattern: str) -> None:
    with pytest.raises(ValueError, match="group="):
        group_of(Path("film.png"), pattern)


def samples_of(sizes: list[int]) -> list[Sample]:
    image_HWC = np.zeros((2, 2, 3), dtype=np.uint8)
    return [
        Sample(f"{group}-{frame}", image_HWC, None, str(group))
        for group, frames in enumerate(sizes)
        for frame in range(frames)
    ]


@given(
    sizes=st.lists(st.integers(1, 4), min_size=3, max_size=30),
    val=st.floats(0.01, 0.49),
    test=st.floats(0.01, 0.49),
    seed=st.integers(0, 9),
)
def test_no_group_is_divided(sizes: list[int], val: float, test: float, seed: int) -> None:
    samples = samples_of(sizes)
    splits = split_by_group(samples, val, test, seed)
    parts = [{sample.group for sample in part} for part in (splits.train, splits.val, splits.test)]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(sizes)
    assert len(splits.train) + len(splits.val) + len(splits.test) == len(samples)


def test_the_seed_deals_differently() -> None:
    samples = samples_of([1] * 20)
    names = [{s.name for s in split_by_group(samples, seed=seed).test} for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]
    assert len(names[0]) == 4


def test_too_few_groups() -> None:
    with pytest.raises(ValueError, match=r"9 pictures are of 2 group\(s\)"):
        split_by_group(samples_of([4, 5]))
    with pytest.raises(ValueError, match="sum to below 1"):
        split_by_group(samples_of([1, 1, 1]), 0.5, 0.5)
