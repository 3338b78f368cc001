"""The segmenter that words steer."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sa2va_rl.prompts import BASE, PROMPTS, SCALES
from sa2va_rl.segmenters.mask_cache import overlap
from sa2va_rl.segmenters.models import single_mask
from sa2va_rl.segmenters.vesselness import (
    Ridges,
    VesselnessSegmenter,
    green,
    hysteresis,
    without_specks,
)

TEXT = "Please segment the blood vessel."


def bar(half_width: float, noise: float = 0.01, side: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A dark upright bar on grey, and its mask."""
    rng = np.random.default_rng(0)
    truth_HW = np.zeros((side, side), dtype=bool)
    truth_HW[:, np.abs(np.arange(side) - side // 2) <= half_width] = True
    picture_HW = 0.6 - 0.25 * truth_HW + rng.normal(0, noise, truth_HW.shape)
    return np.clip(np.rint(picture_HW * 255), 0, 255).astype(np.uint8), truth_HW


def segment(image: np.ndarray, text: str) -> np.ndarray:
    return single_mask(
        VesselnessSegmenter().predict_forward(Image.fromarray(image), text), *image.shape[:2]
    )


@pytest.mark.parametrize(("half_width", "text"), [(1, "thin vessels"), (3, "wide vessels")])
def test_a_bar_is_found(half_width: float, text: str) -> None:
    image, truth_HW = bar(half_width)
    assert overlap(segment(image, text), truth_HW).dice > 0.7


def test_the_right_width_does_better() -> None:
    for half_width, right, wrong in ((0.5, "thin", "wide"), (4, "wide", "thin")):
        image, truth_HW = bar(half_width)
        dice = [
            overlap(segment(image, f"{word} vessels"), truth_HW).dice for word in (right, wrong)
        ]
        assert dice[0] > dice[1] + 0.1


def test_bright_lines_are_no_vessels() -> None:
    image, truth_HW = bar(1)
    assert not (segment(255 - image, TEXT) & truth_HW)[:, 47:50].any()


def test_a_blank_picture_has_no_vessel() -> None:
    for value in (0, 128, 255):
        assert not segment(np.full((40, 50), value, dtype=np.uint8), TEXT).any()


def test_the_mask_does_not_depend_on_brightness() -> None:
    picture_HW = green(Image.fromarray(bar(2)[0]))
    controls = BASE
    bright, dim = (Ridges(picture_HW * light).z_scores(controls) for light in (1.0, 0.5))
    np.testing.assert_allclose(bright, dim, atol=2e-3, rtol=2e-3)


def test_what_is_kept_of_a_picture_changes_no_mask() -> None:
    used, (first, second) = VesselnessSegmenter(), (bar(1)[0], bar(3)[0])
    for image in (first, second, first):
        for prompt in ("thin vessels", "wide vessels in noise", "thin vessels"):
            again = used.predict_forward(Image.fromarray(image), prompt)
            fresh = VesselnessSegmenter().predict_forward(Image.fromarray(image), prompt)
            np.testing.assert_array_equal(again["prediction_masks"], fresh["prediction_masks"])


def test_sizes_follow_the_picture() -> None:
    image, truth_HW = bar(2, noise=0.0)
    large = np.kron(image, np.ones((2, 2), dtype=np.uint8))
    small_dice = overlap(segment(image, "wide vessels"), truth_HW).dice
    large_dice = overlap(segment(large, "wide vessels"), np.kron(truth_HW, np.ones((2, 2), bool)))
    assert large_dice.dice == pytest.approx(small_dice, abs=0.1)


def test_following_keeps_pieces_with_a_start_that_are_large_enough() -> None:
    z_HW = np.zeros((160, 160), dtype=np.float32)
    z_HW[10, 10:70] = 3.0  # followed: touches a start
    z_HW[10, 10] = 6.0
    z_HW[50, 10:70] = 3.0  # no start
    z_HW[90, 10:20] = 6.0  # too small
    z_HW[11, 70:90] = 3.0  # touches the first at a corner
    mask_HW = without_specks(hysteresis(z_HW, 2.5, 5.0), 40.0)
    assert mask_HW.sum() == 80
    assert mask_HW[10, 10:70].all()
    assert not mask_HW[50].any()


def test_the_map_is_half_where_a_vessel_starts() -> None:
    image, _ = bar(2)
    answer = VesselnessSegmenter().predict_forward(Image.fromarray(image), TEXT)
    (map_FHW,), (mask_FHW,) = answer["probability_maps"], answer["prediction_masks"]
    assert map_FHW.shape == mask_FHW.shape == (1, 96, 96)
    assert mask_FHW[map_FHW > 0.5].mean() > 0.95  # less what is too small
    assert map_FHW[~mask_FHW].max() <= 0.5 or (map_FHW[~mask_FHW] > 0.5).sum() < 40


def test_eleven_prompts_give_several_masks_and_always_the_same() -> None:
    image, _ = bar(2, noise=0.06)
    masks = [segment(image, prompt) for prompt in PROMPTS]
    assert len({mask.tobytes() for mask in masks}) >= 9
    np.testing.assert_array_equal(masks[0], segment(image, PROMPTS[0]))


def test_colour_pictures_are_read_by_their_green() -> None:
    image, _ = bar(2)
    colour = np.stack([np.full_like(image, 7), image, np.full_like(image, 200)], axis=2)
    np.testing.assert_array_equal(segment(colour, TEXT), segment(image, TEXT))


def test_the_fingerprint_follows_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    before = VesselnessSegmenter().fingerprint
    assert before == VesselnessSegmenter().fingerprint
    monkeypatch.setitem(SCALES, "thin", (1.1, 1.6))
    assert VesselnessSegmenter().fingerprint != before
