"""The small segmenter that experiment 3b fine-tunes.

A U-Net (Ronneberger et al., 2015) of about 70,000 weights, pre-trained on few true masks, so that
fine-tuning can improve it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core_rl.loop.step_guard import leave_out_non_finite
from sa2va_rl.compare_config import FinetuneConfig
from sa2va_rl.data.files import Sample
from sa2va_rl.rewards.reward_net import without_shades
from sa2va_rl.segmenters.mask_cache import Mask

WINDOW = 33  # side of the square whose mean is subtracted, in pixels
CONTRAST = 5.0
MULTIPLE = 8  # height and width are padded to a multiple of this: they are halved three times


class SmallSegmenter(nn.Module):
    """Logits of vessel pixels; works on half-size pictures with four channels.

    Args:
        width: channels of the first layer.
    """

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            [_block(4, width), _block(width, 2 * width), _block(2 * width, 4 * width)]
        )
        self.up = nn.ModuleList([_block(6 * width, 2 * width), _block(3 * width, width)])
        self.last = nn.Conv2d(width, 4, 1)
        # Few pixels are vessels; without this bias the first steps only learn that.
        assert self.last.bias is not None, "a layer with a bias"
        nn.init.constant_(self.last.bias, -2.0)

    def forward(self, pictures_NHW: Tensor) -> Tensor:
        """Return logits NHW of pictures as `seen` prepares them."""
        height, width = pictures_NHW.shape[-2:]
        pad = -width % MULTIPLE, -height % MULTIPLE
        padded = F.pad(pictures_NHW[:, None], (0, pad[0], 0, pad[1]), mode="replicate")
        # Channels last takes a fifth less time in convolutions on a CPU.
        halved = F.pixel_unshuffle(padded, 2).contiguous(memory_format=torch.channels_last)
        fine = self.down[0](halved)
        middle = self.down[1](F.max_pool2d(fine, 2))
        coarse = self.down[2](F.max_pool2d(middle, 2))
        middle = self.up[0](torch.cat([middle, _doubled(coarse)], dim=1))
        fine = self.up[1](torch.cat([fine, _doubled(middle)], dim=1))
        return F.pixel_shuffle(self.last(fine), 2)[:, 0, :height, :width]


def _block(inside: int, outside: int) -> nn.Module:
    layers = []
    for channels in (inside, outside):
        layers += [
            nn.Conv2d(channels, outside, 3, padding=1, bias=False),
            nn.GroupNorm(4, outside),
            nn.SiLU(),
        ]
    return nn.Sequential(*layers)


def _doubled(found: Tensor) -> Tensor:
    return F.interpolate(found, scale_factor=2, mode="bilinear", align_corners=False)


def seen(sample: Sample) -> Tensor:
    """Return the segmenter's input HW: grey minus the local mean."""
    grey_HW = torch.from_numpy(sample.image_HWC.mean(axis=2, dtype=np.float32) / 255.0)
    return CONTRAST * without_shades(grey_HW, WINDOW)


@torch.no_grad()
def segment(net: SmallSegmenter, samples: Sequence[Sample]) -> list[Mask]:
    """Return hard masks HW of pictures of any sizes."""
    net.eval()
    return [(net(seen(sample)[None])[0] > 0).numpy() for sample in samples]


def start_segmenter(
    labelled: Sequence[Sample], config: FinetuneConfig, seed: int
) -> SmallSegmenter:
    """Pre-train a segmenter on the true masks of a few pictures."""
    torch.manual_seed(seed)
    net = SmallSegmenter(config.width)
    learn_from_truth(net, labelled, config.start_steps, config.start_lr, config.batch_size, seed)
    return net


def learn_from_truth(
    net: SmallSegmenter,
    samples: Sequence[Sample],
    steps: int,
    lr: float,
    batch_size: int,
    seed: int,
) -> None:
    """Train a segmenter in place on true masks by cross entropy and soft Dice.

    Raises:
        ValueError: a picture has no true mask.
    """
    bare = [sample.name for sample in samples if sample.truth_HW is None]
    if bare:
        raise ValueError(f"{bare[0]} has no mask: the segmenter is trained on pictures with masks")
    pictures = [seen(sample) for sample in samples]
    truths = [torch.from_numpy(np.asarray(sample.truth_HW, np.float32)) for sample in samples]
    optimizer = torch.optim.AdamW(net.parameters(), lr)
    leave_out_non_finite(optimizer)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    net.train()
    for _, places in zip(range(steps), batches(len(samples), batch_size, seed), strict=False):
        turn = _turn()
        logits_NHW = net(turn(torch.stack([pictures[place] for place in places])))
        truth_NHW = turn(torch.stack([truths[place] for place in places]))
        loss = F.binary_cross_entropy_with_logits(logits_NHW, truth_NHW)
        loss = loss + 1 - _soft_dice(logits_NHW.sigmoid(), truth_NHW)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _soft_dice(soft_NHW: Tensor, truth_NHW: Tensor) -> Tensor:
    both = (soft_NHW * truth_NHW).sum(dim=(1, 2))
    return ((2 * both + 1) / (soft_NHW.sum(dim=(1, 2)) + truth_NHW.sum(dim=(1, 2)) + 1)).mean()


def batches(count: int, size: int, seed: int) -> Iterator[list[int]]:
    """Yield batches of indices without end, drawn without replacement in each pass."""
    rng = np.random.default_rng(seed)
    order: list[int] = []
    while True:
        while len(order) < size:
            order += rng.permutation(count).tolist()
        yield order[:size]
        order = order[size:]


def _turn() -> Callable[[Tensor], Tensor]:
    """Draw the flips of a batch from torch's global generator."""
    axes = [axis for axis in (1, 2) if torch.rand(()) < 0.5]
    return lambda batch_NHW: batch_NHW.flip(axes) if axes else batch_NHW
