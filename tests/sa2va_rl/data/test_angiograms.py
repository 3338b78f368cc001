"""Generated angiograms: exact, repeatable, and such that prompts differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sa2va_rl.data.angiograms import (
    DEFAULT,
    SHIFTED,
    AngiogramSettings,
    Points,
    draw_sample,
    draw_samples,
    rasterise,
)
from sa2va_rl.prompts import PROMPTS
from sa2va_rl.segmenters.mask_cache import MaskCache, overlap
from sa2va_rl.segmenters.vesselness import VesselnessSegmenter


def test_one_disc_is_drawn_exactly() -> None:
    points = Points(np.array([10.0]), np.array([12.5]), np.array([3.0]))
    mask_HW, depth_HW = rasterise(points, 24)
    y_HW, x_HW = np.mgrid[:24, :24]
    np.testing.assert_array_equal(mask_HW, (y_HW - 10) ** 2 + (x_HW - 12.5) ** 2 <= 9)
    assert depth_HW[10, 12] == depth_HW.max() == pytest.approx(np.sqrt(8.75 / 3))


def test_discs_outside_leave_nothing() -> None:
    mask_HW, _ = rasterise(Points(np.array([-9.0]), np.array([5.0]), np.array([2.0])), 24)
    assert not mask_HW.any()


@pytest.mark.parametrize("settings", [DEFAULT, SHIFTED])
def test_pictures_have_vessels_and_background(settings: AngiogramSettings) -> None:
    for sample in draw_samples(settings, range(12)):
        assert sample.truth_HW is not None
        assert sample.image_HWC.shape == (160, 160, 3)
        assert sample.image_HWC.dtype == np.uint8
        assert 0.005 < sample.truth_HW.mean() < 0.35


def test_numbers_and_seeds_name_pictures() -> None:
    first, again = draw_sample(DEFAULT, 3), draw_sample(DEFAULT, 3)
    np.testing.assert_array_equal(first.image_HWC, again.image_HWC)
    for other in (draw_sample(DEFAULT, 4), draw_sample(DEFAULT, 3, seed=1)):
        assert (first.image_HWC != other.image_HWC).any()
        assert first.group != other.group


def test_frames_of_a_patient_share_group_and_tree() -> None:
    frames = draw_samples(DEFAULT, range(1), frames=2)
    assert frames[0].group == frames[1].group
    assert frames[0].name != frames[1].name
    sizes = [frame.truth_HW.sum() for frame in frames if frame.truth_HW is not None]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.25)
    assert (frames[0].image_HWC != frames[1].image_HWC).any()


def test_vessels_are_dark() -> None:
    clean = replace(DEFAULT, log_noise=(0.001, 0.002), clutter=(0.0, 0.0))
    for group in range(5):
        sample = draw_sample(clean, group)
        assert sample.truth_HW is not None
        grey_HW = sample.image_HWC[..., 0].astype(float)
        assert grey_HW[sample.truth_HW].mean() < grey_HW[~sample.truth_HW].mean()


def test_the_best_prompt_changes_from_picture_to_picture(tmp_path: Path) -> None:
    """The gate of the embedded data: choosing a prompt for each picture is worth 5 Dice points."""
    masks, samples = MaskCache(VesselnessSegmenter(), tmp_path), draw_samples(DEFAULT, range(24))
    dice_BK = np.array(
        [
            [overlap(masks(s.image_HWC, p), s.truth_HW).dice for p in PROMPTS]
            for s in samples
            if s.truth_HW is not None
        ]
    )
    oracle, fixed = dice_BK.max(axis=1).mean(), dice_BK.mean(axis=0).max()
    assert oracle - fixed >= 0.05
    assert oracle > 0.65  # worth choosing, too
    assert len(set(dice_BK.argmax(axis=1))) >= 4
    assert masks.calls == 24 * 11
