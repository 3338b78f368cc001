"""Experiment 3b: change a segmenter's own weights so that the reward network likes its masks.

Here alone a gradient runs from the reward through the mask into a segmenter: the mask is soft, the
reward network frozen.  A policy over prompts (experiments 1 and 3a) differentiates nothing of that
kind, and neither does the published run, whatever its name says.

A network judges well what it was trained on; a segmenter that is pushed to please it leaves that
ground, and then the score rises while the truth falls (reward hacking).  Two things hold it back:
an anchor, the divergence from the masks it started with, and a stop at the best Dice of validation
pictures.  `Curve` keeps score and Dice of every look, so that the parting of the two can be seen.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sa2va_rl.compare_config import FinetuneConfig
from sa2va_rl.data.files import Sample
from sa2va_rl.learning.differentiable_segmenter import SmallSegmenter, batches, seen
from sa2va_rl.rewards.reward_net import RewardNet, inputs_of
from sa2va_rl.segmenters.mask_cache import overlap

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Curve:
    """Looks at validation pictures on the way.

    Attributes:
        steps: taken before each look.
        reward: mean score of the soft masks by the reward network, in [0, 1].
        dice: mean overlap of the hard masks with the truth.
        distance: mean divergence from the start's masks, in nats a pixel.
    """

    steps: tuple[int, ...]
    reward: tuple[float, ...]
    dice: tuple[float, ...]
    distance: tuple[float, ...]


@dataclass(frozen=True)
class Finetuned:
    """A segmenter after fine-tuning.

    Attributes:
        best: weights of the look with the best validation Dice; the start's if none was better.
        last: of the last step.
        curve: of the way.
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
    anchored: bool = True,
) -> Finetuned:
    """Raise the reward network's score of a segmenter's masks by gradient.

    Args:
        start: the segmenter; left as it is.
        judge: the reward network; frozen, left as it is.
        pictures: to learn on; their truths, if they have any, are not read.
        held_out: pictures with truths, for the looks.
        config: steps, rate, anchor and patience.
        seed: of the order.
        anchored: with the anchor and the early stop; without, all steps are taken.
    """
    judge = copy.deepcopy(judge).eval().requires_grad_(False)
    net, frozen = copy.deepcopy(start), copy.deepcopy(start).eval().requires_grad_(False)
    inputs = [seen(sample) for sample in pictures]
    optimizer = torch.optim.AdamW(net.parameters(), config.lr, weight_decay=0.0)
    weight = config.anchor if anchored else 0.0
    looks = [_look(net, frozen, judge, held_out)]
    best, best_dice, worse = copy.deepcopy(net), looks[0][1], 0
    steps = [0]
    dealt = batches(len(pictures), config.batch_size, seed)
    for step, places in zip(range(1, config.steps + 1), dealt, strict=False):
        net.train()
        stacked_NHW = torch.stack([inputs[place] for place in places])
        logits_NHW = net(stacked_NHW)
        images = [pictures[place] for place in places]
        loss = -_scores(judge, images, logits_NHW.sigmoid()).mean()
        if weight:
            with torch.no_grad():
                anchor_NHW = frozen(stacked_NHW)
            loss = loss + weight * _divergence(logits_NHW, anchor_NHW).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), config.grad_clip)
        optimizer.step()
        if step % config.look_every and step != config.steps:
            continue
        steps.append(step)
        looks.append(_look(net, frozen, judge, held_out))
        if looks[-1][1] > best_dice:
            best, best_dice, worse = copy.deepcopy(net), looks[-1][1], 0
        else:
            worse += 1
        if anchored and worse >= config.patience:
            log.info("fine-tuning stopped at step %d: Dice no better for %d looks", step, worse)
            break
    reward, dice, distance = zip(*looks, strict=True)
    return Finetuned(best, net, Curve(tuple(steps), reward, dice, distance))


@torch.no_grad()
def _look(
    net: SmallSegmenter, frozen: SmallSegmenter, judge: RewardNet, samples: Sequence[Sample]
) -> tuple[float, float, float]:
    """Return mean score, Dice and distance from the start on held-out pictures."""
    net.eval()
    rows = []
    for sample in samples:
        assert sample.truth_HW is not None, "looks need truths"
        picture_1HW = seen(sample)[None]
        logits_1HW = net(picture_1HW)
        score = float(_scores(judge, [sample], logits_1HW.sigmoid()))
        dice = overlap((logits_1HW[0] > 0).numpy(), sample.truth_HW).dice
        rows.append((score, dice, float(_divergence(logits_1HW, frozen(picture_1HW)))))
    reward, dice, distance = (float(np.mean(column)) for column in zip(*rows, strict=True))
    return reward, dice, distance


def _scores(judge: RewardNet, samples: Sequence[Sample], soft_NHW: Tensor) -> Tensor:
    """Score soft masks N, with their graph."""
    pairs = [
        inputs_of(sample.image_HWC, soft_1HW, judge.config.side)
        for sample, soft_1HW in zip(samples, soft_NHW.split(1), strict=True)
    ]
    return judge.quality(torch.cat(pairs))


def _divergence(logits_NHW: Tensor, anchor_NHW: Tensor) -> Tensor:
    """KL of each picture's pixels from the anchor's, mean over pixels, N."""
    share = logits_NHW.sigmoid()
    apart = share * (logits_NHW - anchor_NHW)
    # log(1 - sigmoid(x)) = -softplus(x), so KL = p (x - a) - softplus(x) + softplus(a).
    return (apart - F.softplus(logits_NHW) + F.softplus(anchor_NHW)).mean(dim=(1, 2))
