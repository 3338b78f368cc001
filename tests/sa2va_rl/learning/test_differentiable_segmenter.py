"""The small segmenter: shapes, what it sees, and that few masks teach it something."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sa2va_rl.compare_config import FinetuneConfig
from sa2va_rl.data.angiograms import DEFAULT, draw_samples
from sa2va_rl.learning.differentiable_segmenter import (
    SmallSegmenter,
    batches,
    learn_from_truth,
    seen,
    segment,
    start_segmenter,
)
from sa2va_rl.segmenters.mask_cache import overlap

SAMPLES = draw_samples(replace(DEFAULT, side=64), range(6))
CONFIG = FinetuneConfig(width=8, start_steps=60, start_lr=1e-2)


@pytest.mark.parametrize("size", [(64, 64), (50, 75), (33, 40)])
def test_logits_have_the_pictures_size(size: tuple[int, int]) -> None:
    assert SmallSegmenter(8)(torch.randn(2, *size)).shape == (2, *size)


def test_light_and_slow_shades_are_not_seen() -> None:
    sample = SAMPLES[0]
    brighter = replace(sample, image_HWC=np.clip(sample.image_HWC, 0, 215) + np.uint8(40))
    darker = replace(sample, image_HWC=np.clip(sample.image_HWC, 0, 215))
    torch.testing.assert_close(seen(brighter), seen(darker), atol=1e-4, rtol=0)  # rounding


def test_few_masks_teach_it_something_that_holds_elsewhere() -> None:
    learnt = start_segmenter(SAMPLES[:3], CONFIG, seed=0)

    def dice(net: SmallSegmenter) -> float:
        found = zip(segment(net, SAMPLES[3:]), SAMPLES[3:], strict=True)
        return float(np.mean([overlap(mask, sample.truth_HW).dice for mask, sample in found]))

    torch.manual_seed(0)
    assert dice(learnt) > dice(SmallSegmenter(8)) + 0.1


def test_a_seed_gives_the_same_weights() -> None:
    short = replace(CONFIG, start_steps=2)
    one, two, other = (start_segmenter(SAMPLES[:3], short, seed) for seed in (0, 0, 1))
    assert torch.equal(one.last.weight, two.last.weight)
    assert not torch.equal(one.last.weight, other.last.weight)


def test_a_picture_without_a_mask_is_refused() -> None:
    bare = replace(SAMPLES[0], truth_HW=None)
    with pytest.raises(ValueError, match="has no mask"):
        learn_from_truth(SmallSegmenter(8), [bare], 1, 1e-3, 2, 0)


def test_batches_deal_every_picture_before_any_comes_again() -> None:
    dealt = batches(5, 2, seed=0)
    places = [place for _ in range(5) for place in next(dealt)]
    assert sorted(places[:5]) == sorted(places[5:]) == list(range(5))
    assert len(next(batches(2, 4, seed=0))) == 4  # more than there are: some twice
