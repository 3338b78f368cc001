"""Masks with labels: what a reward network learns from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from sa2va_rl.data.angiograms import DEFAULT, draw_samples
from sa2va_rl.rewards.reward_pairs import TRUTH, label_of, probe_pairs, prompt_pairs
from sa2va_rl.segmenters.mask_cache import Mask, Overlap, overlap

DICE = {"dice": 1.0}
SAMPLES = draw_samples(replace(DEFAULT, side=64), range(3))


def upper_half(image_HWC: NDArray[np.uint8], prompt: str) -> Mask:
    mask_HW = np.zeros(image_HWC.shape[:2], dtype=bool)
    mask_HW[: len(mask_HW) // 2] = True
    return mask_HW


def test_labels_are_weighed() -> None:
    found = Overlap(dice=0.4, iou=0.25, precision=0.5, recall=0.3)
    assert label_of(found, DICE) == 0.4
    assert label_of(found, {"dice": 0.5, "recall": 0.5}) == pytest.approx(0.35)


def test_every_prompt_of_every_picture_is_labelled() -> None:
    pairs = list(prompt_pairs(SAMPLES, ("one", "two"), upper_half, DICE))
    assert [(pair.picture, pair.kind) for pair in pairs] == [
        (picture, kind) for picture in range(3) for kind in ("one", "two")
    ]
    for pair in pairs:
        truth_HW = SAMPLES[pair.picture].truth_HW
        assert truth_HW is not None
        assert pair.label == overlap(pair.mask_HW, truth_HW).dice


def test_the_truth_is_the_best_of_the_probes() -> None:
    pairs = list(probe_pairs(SAMPLES, DICE))
    assert len(pairs) == 3 * 7
    for pair in pairs:
        assert (pair.label == 1) == (pair.kind == TRUTH)
        if pair.kind == "empty":
            assert pair.label == 0


def test_the_foreign_mask_is_another_group_s() -> None:
    same = [replace(sample, group="one") for sample in SAMPLES[:2]]
    assert {pair.kind for pair in probe_pairs(same, DICE)} == {
        *("truth", "empty", "full", "dilated", "eroded", "shifted")
    }
    pairs = {pair.kind: pair for pair in probe_pairs([*same, SAMPLES[2]], DICE) if not pair.picture}
    np.testing.assert_array_equal(pairs["foreign"].mask_HW, SAMPLES[2].truth_HW)


def test_probes_follow_the_seed() -> None:
    shifted = [
        [pair.mask_HW for pair in probe_pairs(SAMPLES, DICE, seed) if pair.kind == "shifted"]
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(shifted[0], shifted[1])
    assert (np.array(shifted[0]) != np.array(shifted[2])).any()


def test_pictures_without_masks_cannot_teach() -> None:
    bare = [replace(SAMPLES[0], truth_HW=None)]
    with pytest.raises(ValueError, match="has no mask: the reward network is trained on"):
        list(prompt_pairs(bare, ("one",), upper_half, DICE))
