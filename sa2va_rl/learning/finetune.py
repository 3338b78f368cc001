"""Experiment 3b: fine-tune a segmenter's weights by the gradient of the reward network.

Only here a gradient flows from the reward through the mask into a segmenter: the mask is soft, the
reward network frozen.  A policy over prompts (experiments 1 and 3a) has no such gradient, and
neither has the published run, in spite of its name.

The reward network is accurate on masks like those it was trained on.  Fine-tuning can leave that
range, so that the score rises while Dice falls (reward hacking).  Two measures prevent it: an
anchor, the KL divergence from the masks before fine-tuning, and early stopping by the Dice of
validation pictures.  `Curve` records score and Dice of every evaluation.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core_rl.loop.step_guard import leave_out_non_finite
from sa2va_rl.compare_config import FinetuneConfig
from sa2va_rl.data.files import Sample
from sa2va_rl.learning.differentiable_segmenter import SmallSegmenter, batches, seen
from sa2va_rl.rewards.reward_net import RewardNet, inputs_of
from sa2va_rl.segmenters.mask_cache import overlap

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Curve:
    """Evaluations on validation pictures during fine-tuning.

    Attributes:
        steps: number of steps before each evaluation.
        reward: mean score of the soft masks by the reward network, in [0, 1].
        dice: mean Dice of the hard masks.
        distance: mean KL divergence from the masks before fine-tuning, in nats a pixel.
    """

    steps: tuple[int, ...]
    reward: tuple[float, ...]
    dice: tuple[float, ...]
    distance: tuple[float, ...]


@dataclass(frozen=True)
class Finetuned:
    """A segmenter after fine-tuning.

    Attributes:
        best: with the weights of the best validation Dice, which may be those of the start.
        last: with the weights of the last step.
        curve: all evaluations.
    """

    best: SmallSegmenter
    last: SmallSegmenter
    curve: Curve


def finetune(
    start: SmallSegmenter,
    judge: RewardNet,
    pictures: Sequence[Sample],
    held_out: Sequence[Sample],
    config: FinetuneConfig,
    seed: int,
) -> Finetuned:
    """Raise the reward network's score of a segmenter's masks by gradient descent.

    Args:
        start: the segmenter; it is left unchanged.
        judge: the reward network; it is left unchanged.
        pictures: training pictures; their true masks, if any, are not read.
        held_out: validation pictures with true masks.
        config: steps, learning rate, anchor and patience; see `without_brakes`.
        seed: of the order.
    """
    judge = copy.deepcopy(judge).eval().requires_grad_(False)
    net, frozen = copy.deepcopy(start), copy.deepcopy(start).eval().requires_grad_(False)
    inputs = [seen(sample) for sample in pictures]
    optimizer = torch.optim.AdamW(net.parameters(), config.lr, weight_decay=0.0)
    leave_out_non_finite(optimizer)
    steps, looks = [0], [_look(net, frozen, judge, held_out)]
    best, best_dice, worse = copy.deepcopy(net), looks[0][1], 0
    dealt = batches(len(pictures), config.batch_size, seed)
    for step, places in zip(range(1, config.steps + 1), dealt, strict=False):
        net.train()
        stacked_NHW = torch.stack([inputs[place] for place in places])
        logits_NHW = net(stacked_NHW)
        images = [pictures[place] for place in places]
        loss = -_scores(judge, images, logits_NHW.sigmoid()).mean()
        if config.anchor:
            with torch.no_grad():
                anchor_NHW = frozen(stacked_NHW)
            loss = loss + config.anchor * _divergence(logits_NHW, anchor_NHW).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), config.grad_clip)
        optimizer.step()
        if step % config.look_every and step != config.steps:
            continue
        steps.append(step)
        looks.append(_look(net, frozen, judge, held_out))
        worse += 1
        if looks[-1][1] > best_dice:
            best, best_dice, worse = copy.deepcopy(net), looks[-1][1], 0
        if worse >= config.patience and step < config.steps:
            log.info("fine-tuning: Dice no better for %d evaluations, stop at %d", worse, step)
            break
    reward, dice, distance = zip(*looks, strict=True)
    return Finetuned(best, net, Curve(tuple(steps), reward, dice, distance))


def without_brakes(config: FinetuneConfig) -> FinetuneConfig:
    """Return the settings without anchor and early stopping: all steps are taken."""
    return replace(config, anchor=0.0, patience=config.steps)


@torch.no_grad()
def _look(
    net: SmallSegmenter, frozen: SmallSegmenter, judge: RewardNet, samples: Sequence[Sample]
) -> tuple[float, float, float]:
    """Evaluate: mean score, Dice and KL divergence from the start on held-out pictures."""
    net.eval()
    rows = []
    for sample in samples:
        assert sample.truth_HW is not None, "validation needs true masks"
        picture_1HW = seen(sample)[None]
        logits_1HW = net(picture_1HW)
        score = float(_scores(judge, [sample], logits_1HW.sigmoid()))
        dice = overlap((logits_1HW[0] > 0).numpy(), sample.truth_HW).dice
        rows.append((score, dice, float(_divergence(logits_1HW, frozen(picture_1HW)))))
    reward, dice, distance = (float(np.mean(column)) for column in zip(*rows, strict=True))
    return reward, dice, distance


def _scores(judge: RewardNet, samples: Sequence[Sample], soft_NHW: Tensor) -> Tensor:
    """Score soft masks N; gradients pass through."""
    pairs = [
        inputs_of(sample.image_HWC, soft_1HW, judge.config.side)
        for sample, soft_1HW in zip(samples, soft_NHW.split(1), strict=True)
    ]
    return judge.quality(torch.cat(pairs))


def _divergence(logits_NHW: Tensor, anchor_NHW: Tensor) -> Tensor:
    """Return the KL divergence of each picture's pixels from the anchor's, mean over pixels, N."""
    share = logits_NHW.sigmoid()
    apart = share * (logits_NHW - anchor_NHW)
    # log(1 - sigmoid(x)) = -softplus(x), so KL = p (x - a) - softplus(x) + softplus(a).
    return (apart - F.softplus(logits_NHW) + F.softplus(anchor_NHW)).mean(dim=(1, 2))
