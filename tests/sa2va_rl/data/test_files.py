"""Files that can be read, files that cannot, and splits by patient."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from core_rl.config import OnBadRecord
from sa2va_rl.config import Corners, PolygonRule, Sa2VADataConfig, Source
from sa2va_rl.data.files import (
    Sample,
    group_of,
    read_annotations,
    read_folders,
    split_by_group,
)

SQUARE = [2, 2, 6, 2, 6, 6, 2, 6]  # 16 pixels by the rule of COCO
SKIP = OnBadRecord.skip


def picture(path: Path, height: int = 8, width: int = 12) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, dtype=np.uint8)).save(path)
    return path


def line(path: Path, row: int = 3) -> Path:
    """A mask of 8 x 12 pixels with three pixels of a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask_HW = np.zeros((8, 12), dtype=np.uint8)
    mask_HW[row, 4:7] = 255
    Image.fromarray(mask_HW).save(path)
    return path


def annotated(folder: Path, entries: Any, **changes: Any) -> list[Sample]:
    path = folder / "annotations.json"
    path.write_text(json.dumps(entries))
    return read_annotations(Sa2VADataConfig(source=Source.annotations, path=str(path), **changes))


def folders(images: Path, masks: Path | None = None, **changes: Any) -> list[Sample]:
    return read_folders(images, masks, Sa2VADataConfig(**changes))


def area(sample: Sample) -> int:
    assert sample.truth_HW is not None
    return int(sample.truth_HW.sum())


def test_annotated_pictures(tmp_path: Path) -> None:
    picture(tmp_path / "film3_0007.png")
    entry = {"image": "film3_0007.png", "mask": [SQUARE], "text": ["blood vessel"]}
    (sample,) = annotated(tmp_path, [entry])
    assert sample.image_HWC.shape == (8, 12, 3)
    assert area(sample) == 16
    assert sample.truth_HW is not None and sample.truth_HW[2:6, 2:6].all()
    assert (sample.text, sample.group) == ("blood vessel", f"{tmp_path.name}/film3")
    (sample,) = annotated(tmp_path, [entry], polygon_rule=PolygonRule.cv2)
    assert area(sample) == 25


def test_sa2vas_own_layout(tmp_path: Path) -> None:
    """Pictures in `images/` beside the file, and polygons sorted by object."""
    picture(tmp_path / "images" / "a_1.png")
    moved = [value + 3 * (1 - index % 2) for index, value in enumerate(SQUARE)]  # 3 to the right
    entry = {"image": "a_1.png", "mask": [[SQUARE], [moved, SQUARE]], "text": ["one", "two"]}
    (sample,) = annotated(tmp_path, [entry])
    assert area(sample) == 28
    assert sample.text == "one, two"
    (tmp_path / "annotations.json").unlink()
    (sample,) = annotated(tmp_path, [entry], images=str(tmp_path / "images"))
    assert area(sample) == 28


def test_entries_of_one_picture_are_united(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture(tmp_path / "a.png")
    moved = [value + 3 * (1 - index % 2) for index, value in enumerate(SQUARE)]
    caplog.set_level(logging.INFO)
    (sample,) = annotated(
        tmp_path,
        [
            {"image": "a.png", "mask": [SQUARE], "text": "vessel"},
            {"image": "./a.png", "mask": [moved], "text": ["vessel", "branch"]},
        ],
    )
    assert area(sample) == 28
    assert sample.text == "vessel, branch"
    assert "entries of one picture are united" in caplog.text


def test_normalised_corners(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    shares = [value / side for value, side in zip(SQUARE, [12, 8] * 4, strict=True)]
    entry = {"image": "a.png", "mask": [shares]}
    (sample,) = annotated(tmp_path, [entry], corners=Corners.normalised)
    assert area(sample) == 16


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "list of annotated pictures that is not empty"),
        ({"image": "a.png"}, "expected a list"),
        ([{"mask": [SQUARE]}], "entry 0: expected an object with `image`"),
        ([{"image": ""}], "entry 0: expected an object with `image`"),
        ([{"image": "a.png"}], r"entry 0 \(a.png\): `mask` has no polygon"),
        ([{"image": "a.png", "mask": []}], "has no polygon"),
        ([{"image": "a.png", "mask": [[]]}], "at least three corners"),
        ([{"image": "a.png", "mask": [[1, 1, 2, 2]]}], "polygon 0 of `mask`"),
        ([{"image": "a.png", "mask": [[SQUARE], [SQUARE, [1, 1]]]}], "polygon 1 of object 1 of"),
        ([{"image": "a.png", "mask": [[*SQUARE, 1]]}], "at least three corners"),
        ([{"image": "a.png", "mask": [[1, 1, 2, 2, "3", 3]]}], "at least three corners"),
        ([{"image": "a.png", "mask": [[1, 1, 2, 2, 10**400, 3]]}], r"entry 0 \(a.png\): polygon 0"),
        ([{"image": "a.png", "mask": [[1, 1, 2, 2, -(10**12), 3]]}], "at least three corners"),
        ([{"image": "a.png", "mask": [[1, 1, 2, 2, float("nan"), 3]]}], "at least three corners"),
        ([{"image": "a.png", "mask": [[1, 1, 2, 2, True, 3]]}], "at least three corners"),
        (
            [{"image": "a.png", "mask": [[90, 90, 95, 90, 95, 95]]}],
            r"\(95, 95\) is outside 12 x 8 pixels.*another size",
        ),
        ([{"image": "a.png", "mask": [[0.1, 0.1, 0.9, 0.1, 0.9, 0.9]]}], "corners=normalised"),
        ([{"image": "a.png", "mask": [[2, 3, 9, 3, 5, 3]]}], r"no pixel.*polygon_rule=cv2"),
    ],
)
def test_entries_that_cannot_be_used(tmp_path: Path, entries: Any, message: str) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match=message):
        annotated(tmp_path, entries)


def test_bad_entries_are_skipped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    good = {"image": "a.png", "mask": [SQUARE]}
    bad = [{"mask": [SQUARE]}, {"image": "b.png", "mask": []}, {"image": "gone.png"}]
    (sample,) = annotated(tmp_path, [bad[0], good, *bad[1:]], on_bad_record=SKIP)
    assert sample.name == "a.png"
    assert "skipped 3 records" in caplog.text
    with pytest.raises(ValueError, match=r"no picture can be used; .*entry 0: expected an object"):
        annotated(tmp_path, bad, on_bad_record=SKIP)


def test_missing_files_are_named(tmp_path: Path) -> None:
    gone = Sa2VADataConfig(source=Source.annotations, path=str(tmp_path / "annotations.json"))
    with pytest.raises(FileNotFoundError, match=r"no annotations at .*annotations\.json"):
        read_annotations(gone)
    with pytest.raises(FileNotFoundError, match=r"b\.png"):
        annotated(tmp_path, [{"image": "b.png", "mask": [SQUARE]}])
    with pytest.raises(FileNotFoundError, match="no picture in"):
        folders(tmp_path / "nowhere")


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    config = Sa2VADataConfig(source=Source.annotations, path=str(path))
    for text in ("[{", "1" * 5000, "[" * 100_000):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"annotations\.json is not JSON"):
            read_annotations(config)


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps([{"image": "a.png", "mask": [SQUARE]}]), encoding="utf-8-sig")
    assert len(read_annotations(Sa2VADataConfig(source=Source.annotations, path=str(path)))) == 1


def test_folders_pair_by_name(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "p1_1.jpg")
    line(tmp_path / "masks" / "p1_1.png")
    (sample,) = folders(tmp_path / "images", tmp_path / "masks")
    assert sample.truth_HW is not None
    assert np.argwhere(sample.truth_HW).tolist() == [[3, 4], [3, 5], [3, 6]]
    picture(tmp_path / "images" / "p2_1.jpg")
    with pytest.raises(FileNotFoundError, match=r"for 1 of 2 pictures, the first p2_1\.jpg"):
        folders(tmp_path / "images", tmp_path / "masks")


@pytest.mark.parametrize(
    ("image", "mask", "mask_name"),
    [
        ("21_training.tif", "21_manual1.gif", "{number}_manual1"),  # DRIVE
        ("Image_01L.jpg", "Image_01L_1stHO.png", "{stem}_1stHO"),  # CHASE_DB1
        ("im0001.ppm", "im0001.ah.pgm", "{stem}.ah"),  # STARE
        ("1.png", "1_gt.png", "{stem}_gt"),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_masks_of_other_names(
    tmp_path: Path, image: str, mask: str, mask_name: str, beside: bool
) -> None:
    images, masks = tmp_path / "images", tmp_path / ("images" if beside else "masks")
    picture(images / image)
    line(masks / mask)
    (sample,) = folders(images, masks, mask_name=mask_name)
    assert (sample.name, area(sample)) == (image, 3)


@pytest.mark.parametrize("name", ["manual", "{stem", "{frame}_1", "{}"])
def test_mask_names_that_name_no_picture(name: str) -> None:
    with pytest.raises(ValueError, match=r"data_mix\.mask_name=.*\{stem\} or \{number\}"):
        Sa2VADataConfig(mask_name=name)


def test_pictures_that_are_their_own_masks(tmp_path: Path) -> None:
    line(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"no picture can be used; .*set data_mix\.mask_name"):
        folders(tmp_path, tmp_path)


def test_two_masks_of_one_name(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    for mask in ("a.png", "a.gif"):
        line(tmp_path / "masks" / mask)
    with pytest.raises(ValueError, match="are masks of one name"):
        folders(tmp_path / "images", tmp_path / "masks")


def test_subfolders_are_read_and_hidden_files_are_not(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        picture(tmp_path / "images" / patient / "0001.png")
        line(tmp_path / "masks" / patient / "0001.png")
    (tmp_path / "images" / "p1" / "._0001.png").write_bytes(b"of macOS")
    picture(tmp_path / "images" / ".thumbnails" / "0001.png")
    samples = folders(tmp_path / "images", tmp_path / "masks")
    assert [sample.name for sample in samples] == ["p1/0001.png", "p2/0001.png"]
    assert [sample.group for sample in samples] == ["p1/", "p2/"]


def test_bad_files_are_skipped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "abc":
        picture(tmp_path / "images" / f"{name}.png")
    line(tmp_path / "masks" / "a.png")
    picture(tmp_path / "masks" / "b.png", 4, 4)
    (sample,) = folders(tmp_path / "images", tmp_path / "masks", on_bad_record=SKIP)
    assert sample.name == "a.png"
    assert "skipped 2 records" in caplog.text and "4 x 4 pixels" in caplog.text


def test_pictures_without_masks(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    assert [sample.truth_HW for sample in folders(tmp_path)] == [None]


def test_masks_that_cover_most_of_their_picture_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "ab":
        picture(tmp_path / "images" / f"{name}.png")
    line(tmp_path / "masks" / "a.png")
    folders(tmp_path / "images", tmp_path / "masks", on_bad_record=SKIP)
    assert "cover more than" not in caplog.text
    picture(tmp_path / "masks" / "b.png")  # white all over
    folders(tmp_path / "images", tmp_path / "masks")
    assert "1 of 2 masks cover more than 60 % of their picture, the first b.png" in caplog.text


NUMBERS = st.one_of(
    st.integers(-5, 20), st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=2)
)
MASKS = st.recursive(NUMBERS, lambda inner: st.lists(inner, max_size=8), max_leaves=20)


@settings(
    max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    entries=st.lists(
        st.one_of(
            st.none(),
            st.fixed_dictionaries(
                {"image": st.sampled_from(["a.png", "b.png", "", 1, "x\0y", "n" * 300])},
                optional={"mask": MASKS, "text": MASKS},
            ),
            st.builds(
                lambda mask: {"image": "a.png", "mask": [mask]},
                st.lists(st.integers(-1, 13), min_size=5, max_size=9),
            ),
        ),
        max_size=3,
    )
)
def test_any_annotation_is_read_or_refused(tmp_path: Path, entries: list[Any]) -> None:
    if not (tmp_path / "a.png").exists():
        picture(tmp_path / "a.png")
    samples, message = list[Sample](), ""
    try:
        samples = annotated(tmp_path, entries)
    except (ValueError, FileNotFoundError) as error:
        message = str(error)
    named = ("annotations.json", "no picture at", "cannot be read as a picture")
    assert bool(samples) != any(part in message for part in named)
    assert all(0 < area(sample) <= 96 for sample in samples)


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
