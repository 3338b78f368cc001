"""Stored masks, overlap with the truth, and masks corrupted on purpose."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from sa2va_rl.prompts import PROMPTS
from sa2va_rl.segmenters.mask_cache import MaskCache, Overlap, corrupted, overlap, shifted
from sa2va_rl.segmenters.models import Prediction

MASKS = arrays(np.bool_, (5, 7))


class DarkerThan:
    """A segmenter whose mask is what is darker than the number that the prompt says."""

    def __init__(self, fingerprint: str = "darker") -> None:
        self.fingerprint = fingerprint

    def predict_forward(self, image: Image.Image, text: str, **_: Any) -> Prediction:
        mask_HW = np.asarray(image)[..., 0] < int(text)
        return Prediction(prediction="[SEG]", prediction_masks=[mask_HW[None]])


def noise(seed: int = 0, height: int = 9, width: int = 13) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_segmenter_is_asked_once(tmp_path: Path) -> None:
    cache, image_HWC = MaskCache(DarkerThan(), tmp_path), noise()
    first = cache(image_HWC, "90")
    np.testing.assert_array_equal(first, image_HWC[..., 0] < 90)
    np.testing.assert_array_equal(cache(image_HWC.copy(), "90"), first)
    again = MaskCache(DarkerThan(), tmp_path)  # another run
    np.testing.assert_array_equal(again(image_HWC, "90"), first)
    assert (cache.calls, cache.reads, again.calls, again.reads) == (1, 1, 0, 1)


def test_another_picture_prompt_or_segmenter_is_another_mask(tmp_path: Path) -> None:
    cache = MaskCache(DarkerThan(), tmp_path)
    cache(noise(0), "90")
    cache(noise(1), "90")
    cache(noise(0), "91")
    cache(noise(0).reshape(13, 9, 3), "90")  # the same bytes in another shape
    assert cache.calls == 4
    other = MaskCache(DarkerThan("brighter"), tmp_path)
    other(noise(0), "90")
    assert other.calls == 1


def test_a_file_holds_a_bit_a_pixel_and_nothing_half_written_stays(tmp_path: Path) -> None:
    MaskCache(DarkerThan(), tmp_path)(noise(), "90")
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert file.stat().st_size == 8 + -(-9 * 13 // 8)


@pytest.mark.parametrize("damage", [b"", b"\x09\x00\x00\x00\x0d\x00\x00\x00", b"x" * 23])
def test_a_damaged_file_is_made_anew(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    cache, image_HWC = MaskCache(DarkerThan(), tmp_path), noise()
    expected = cache(image_HWC, "90")
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    file.write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(cache(image_HWC, "90"), expected)
    assert "is damaged" in caplog.text
    cache(image_HWC, "90")
    assert (cache.calls, cache.reads) == (2, 1)


def test_eleven_prompts_cost_eleven_calls_a_picture(tmp_path: Path) -> None:
    from sa2va_rl.segmenters.vesselness import VesselnessSegmenter

    cache = MaskCache(VesselnessSegmenter(), tmp_path)
    for _ in range(3):
        for prompt in PROMPTS:
            cache(noise(0, 32, 32), prompt)
    assert (cache.calls, cache.reads) == (11, 22)


def test_overlap_by_hand() -> None:
    mask = np.array([[1, 1, 0, 0]], dtype=bool)
    truth = np.array([[0, 1, 1, 1]], dtype=bool)
    assert overlap(mask, truth) == Overlap(dice=2 / 5, iou=1 / 4, precision=1 / 2, recall=1 / 3)


def test_overlap_with_nothing() -> None:
    none, some = np.zeros((2, 2), dtype=bool), np.eye(2, dtype=bool)
    assert overlap(none, none) == Overlap(1.0, 1.0, 1.0, 1.0)
    assert overlap(none, some) == overlap(some, none) == Overlap(0.0, 0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="expected equal"):
        overlap(none, some[:1])


@given(mask=MASKS, truth=MASKS)
def test_overlap_is_consistent(mask: np.ndarray, truth: np.ndarray) -> None:
    found, turned = overlap(mask, truth), overlap(truth, mask)
    assert (found.dice, found.iou) == (turned.dice, turned.iou)
    assert found.dice == pytest.approx(2 * found.iou / (1 + found.iou))
    if mask.any() and truth.any():
        assert (found.precision, found.recall) == (turned.recall, turned.precision)
        assert min(found.precision, found.recall) <= found.dice + 1e-12
        assert found.dice <= max(found.precision, found.recall) + 1e-12


@given(mask=MASKS, down=st.integers(-6, 6), right=st.integers(-8, 8))
def test_shifting_agrees_with_its_definition(mask: np.ndarray, down: int, right: int) -> None:
    expected = np.zeros_like(mask)
    for y, x in zip(*np.nonzero(mask), strict=True):
        if 0 <= y + down < 5 and 0 <= x + right < 7:
            expected[y + down, x + right] = True
    np.testing.assert_array_equal(shifted(mask, down, right), expected)


def test_corrupted_masks_are_worse_than_the_truth() -> None:
    truth = np.zeros((40, 40), dtype=bool)
    truth[5:35, 18:23] = True
    masks = corrupted(truth, np.random.default_rng(0))
    assert set(masks) == {"empty", "full", "dilated", "eroded", "shifted"}
    assert not masks["empty"].any()
    assert masks["full"].all()
    assert masks["eroded"].sum() < truth.sum() < masks["dilated"].sum()
    assert (masks["dilated"] & truth).sum() == truth.sum()
    assert all(overlap(mask, truth).dice < 1 for mask in masks.values())
