from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lever.features.encoders import picture_statistics
from lever.features.pictures import open_picture, written


def cut_off(path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, quality=90)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def no_picture(path: Path) -> Path:
    path.write_text("<html>not found</html>")
    return path


@pytest.mark.parametrize("make", [cut_off, no_picture])
def test_a_file_that_is_no_whole_picture_is_named_with_field_and_cure(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path / "broken.jpg")
    for read in (open_picture, lambda one: picture_statistics([one])):
        with pytest.raises(ValueError, match=r"broken\.jpg cannot .*data_mix\.files\.pictures"):
            read(path)


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.png: no such picture: check data_mix"):
        open_picture(tmp_path / "gone.png")


def test_a_replaced_file_is_told_from_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    Image.new("RGB", (8, 8), "red").save(path)
    before = written(path)
    assert written(path) == before
    Image.new("RGB", (9, 8), "red").save(path)
    assert written(path) != before
