"""Fine-tuning through the reward network: the gradient's way, the anchor, and reward hacking."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from sa2va_rl.compare_config import FinetuneConfig
from sa2va_rl.config import RewardNetConfig
from sa2va_rl.data.angiograms import DEFAULT, draw_samples
from sa2va_rl.learning.differentiable_segmenter import SmallSegmenter, start_segmenter
from sa2va_rl.learning.finetune import Finetuned, _divergence, finetune, without_brakes
from sa2va_rl.rewards.reward_net import RewardNet

SAMPLES = draw_samples(replace(DEFAULT, side=64), range(6))
LEARN, HELD = SAMPLES[:4], SAMPLES[4:]
CONFIG = FinetuneConfig(
    width=8, start_steps=60, start_lr=1e-2, steps=30, lr=5e-3, look_every=5, patience=3, anchor=20.0
)


class LovesWhite(RewardNet):
    """A reward network with a hole: the more a mask covers, the better."""

    def forward(self, pairs_N2HW: Tensor) -> Tensor:
        return 4 * pairs_N2HW[:, 1].mean(dim=(1, 2)) - 2


@pytest.fixture(scope="module")
def start() -> SmallSegmenter:
    return start_segmenter(LEARN, CONFIG, seed=0)


@pytest.fixture(scope="module")
def judge() -> LovesWhite:
    return LovesWhite(RewardNetConfig(side=32, width=4))


@pytest.fixture(scope="module")
def free(start: SmallSegmenter, judge: LovesWhite) -> Finetuned:
    return finetune(start, judge, LEARN, HELD, without_brakes(CONFIG), seed=0)


@pytest.fixture(scope="module")
def anchored(start: SmallSegmenter, judge: LovesWhite) -> Finetuned:
    return finetune(start, judge, LEARN, HELD, CONFIG, seed=0)


def test_without_an_anchor_the_score_rises_and_the_dice_falls(free: Finetuned) -> None:
    curve = free.curve
    assert curve.steps == (0, 5, 10, 15, 20, 25, 30)
    assert curve.reward[-1] > curve.reward[0] + 0.2
    assert curve.dice[-1] < curve.dice[0] - 0.1
    assert curve.distance[0] == pytest.approx(0.0, abs=1e-6) and curve.distance[-1] > 0.1


def test_the_anchor_keeps_the_masks_and_the_stop_ends_it(
    free: Finetuned, anchored: Finetuned
) -> None:
    assert anchored.curve.distance[-1] < free.curve.distance[-1] / 5
    assert max(anchored.curve.dice) >= anchored.curve.dice[0]
    assert anchored.curve.dice[-1] > free.curve.dice[-1]


def test_the_best_look_is_handed_out(start: SmallSegmenter, free: Finetuned) -> None:
    # The judge only harms, so the best is near the start.
    best = int(np.argmax(free.curve.dice))
    moved = (free.best.last.weight - start.last.weight).abs().max()
    assert (moved == 0) == (best == 0)
    assert not torch.equal(free.last.last.weight, start.last.weight)


def test_start_and_judge_stay_as_they_were(judge: LovesWhite) -> None:
    torch.manual_seed(0)
    start = SmallSegmenter(8)
    before = copy.deepcopy(start.state_dict())
    weights = copy.deepcopy(judge.state_dict())
    finetune(start, judge, LEARN, HELD, replace(CONFIG, steps=2), seed=0)
    for name, value in start.state_dict().items():
        assert torch.equal(value, before[name])
    for name, value in judge.state_dict().items():
        assert torch.equal(value, weights[name])
    assert all(p.requires_grad for p in judge.parameters())


def test_the_truth_of_training_pictures_is_not_read(start: SmallSegmenter) -> None:
    torch.manual_seed(0)
    judge = RewardNet(RewardNetConfig(side=32, width=4))
    short = replace(CONFIG, steps=3, look_every=3)
    bare = [replace(sample, truth_HW=None) for sample in LEARN]
    one = finetune(start, judge, LEARN, HELD, short, seed=0)
    two = finetune(start, judge, bare, HELD, short, seed=0)
    assert torch.equal(one.last.last.weight, two.last.last.weight)
    assert not torch.equal(one.last.last.weight, start.last.weight), (
        "a gradient reached the weights"
    )


def test_divergence_is_that_of_coins() -> None:
    share, anchor = torch.tensor([0.2, 0.9]), torch.tensor([0.5, 0.6])
    expected = share * (share / anchor).log() + (1 - share) * ((1 - share) / (1 - anchor)).log()
    found = _divergence(share.logit().reshape(1, 1, 2), anchor.logit().reshape(1, 1, 2))
    torch.testing.assert_close(found, expected.mean().reshape(1))
