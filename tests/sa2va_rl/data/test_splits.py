"""Which pictures a configuration names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sa2va_rl.config import Sa2VADataConfig, Source
from sa2va_rl.data.files import Sample
from sa2va_rl.data.splits import (
    load_bare,
    load_shifted,
    load_splits,
    places_of,
    smaller,
    without_films_of,
)

SMALL = Sa2VADataConfig(train=4, val=2, test=3, shifted=2, side=64)


def test_splits_are_of_different_patients() -> None:
    splits = load_splits(SMALL, seed=1)
    parts = [*(splits.train, splits.val, splits.test), load_shifted(SMALL, 1)]
    assert [len(part) for part in parts] == [4, 2, 3, 2]
    groups = [sample.group for part in parts for sample in part]
    assert len(set(groups)) == len(groups)
    # The generator's ranges were tuned on patients of seed 0: none of them is here.
    assert not any(group.startswith("0-") for group in groups)


def test_a_smaller_split_is_the_beginning_of_a_larger_one() -> None:
    larger = Sa2VADataConfig(train=6, val=3, test=3, side=64)
    few, many = load_splits(SMALL, 1), load_splits(larger, 1)
    for short, long in ((few.train, many.train), (few.val, many.val), (few.test, many.test)):
        for one, other in zip(short, long, strict=False):
            np.testing.assert_array_equal(one.image_HWC, other.image_HWC)
    other_seed = load_splits(SMALL, 2)
    assert (few.train[0].image_HWC != other_seed.train[0].image_HWC).any()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six films of three frames, with masks."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for film in range(6):
        for frame in range(3):
            grey = np.full((64, 64), 40 * film + frame, dtype=np.uint8)
            Image.fromarray(grey).save(tmp_path / "images" / f"film{film}-{frame}.png")
            Image.fromarray(grey > -1).save(tmp_path / "masks" / f"film{film}-{frame}.png")
    return tmp_path


def files(folder: Path, **changes: object) -> Sa2VADataConfig:
    known = {"source": Source.folders, "path": str(folder / "images"), "train": None}
    known |= {"val": None, "test": None, "masks": str(folder / "masks")}
    return Sa2VADataConfig(**{**known, **changes})  # type: ignore[arg-type]


def films(samples: tuple[Sample, ...]) -> set[str]:
    return {sample.group for sample in samples}


def test_files_are_split_by_film(folder: Path) -> None:
    splits = load_splits(files(folder), seed=0)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (12, 3, 3)
    assert not films(splits.train) & films(splits.val)
    assert not films(splits.train) & films(splits.test)
    assert load_shifted(files(folder, shifted=5), 0) == ()


def test_a_part_of_the_files_is_taken_from_every_film(folder: Path) -> None:
    splits = load_splits(files(folder, train=4), seed=0)
    assert len(splits.train) == 4
    assert len(films(splits.train)) == 4
    assert len(splits.val) == 3


def test_a_few_pictures_are_of_many_films(folder: Path) -> None:
    train = load_splits(files(folder), seed=0).train
    assert places_of(train, 4) == [0, 3, 6, 9]
    assert places_of(train, 99) == list(range(12))
    # Generated pictures are patients in no order: the first.
    assert places_of(load_splits(SMALL, 1).train, 3) == [0, 1, 2]


def test_a_smaller_table_learns_from_every_film(folder: Path) -> None:
    splits = load_splits(files(folder), seed=0)
    few = smaller(splits, Source.folders, 4)
    assert len(few.train) == len(films(few.train)) == 4
    assert few.val == splits.val and few.test == splits.test
    drawn = load_splits(SMALL, 1)
    assert smaller(drawn, Source.generated, 2).train == drawn.train[:2]


def test_pictures_without_masks_are_beside(folder: Path) -> None:
    assert load_bare(files(folder)) == ()
    bare = load_bare(files(folder, bare=str(folder / "images")))
    assert len(bare) == 18
    assert all(sample.truth_HW is None for sample in bare)


def test_bare_pictures_of_films_held_out_stay_out(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    splits = load_splits(files(folder), seed=0)
    more = folder / "more"
    more.mkdir()
    for path in (folder / "images").iterdir():
        Image.open(path).save(more / path.name.replace("-", "-9"))  # other frames of the films
    Image.open(path).save(more / "another-1.png")
    bare = load_bare(files(folder, bare=str(more)))
    kept = without_films_of(bare, (*splits.val, *splits.test))
    assert len(kept) == 4 * 3 + 1
    held = {group.split("/")[1] for group in films((*splits.val, *splits.test))}
    assert not held & {group.split("/")[1] for group in films(kept)}
    assert "6 of 19 pictures left out" in caplog.text
    numbered = [replace(bare[0], group=f"{name}/") for name in ("one", "two")]
    assert without_films_of(numbered, numbered[:1]) == (numbered[1],)


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data_mix\.train=None: expected a number of pictures"):
        Sa2VADataConfig(train=None)
    with pytest.raises(ValueError, match=r"data_mix\.path=None: expected a file or folder"):
        Sa2VADataConfig(source=Source.folders)
