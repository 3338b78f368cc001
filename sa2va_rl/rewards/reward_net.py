"""The reward network: estimates the quality of a mask from the picture, without the true mask.

A small convolutional network with two input channels, the picture without its slow intensity
changes and the mask, predicts a quality in [0, 1].  Such estimates are known as quality control in
segmentation (reverse classification accuracy: Valindria et al., 2017; the IoU head of Mask Scoring
R-CNN: Huang et al., 2019).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from core_rl.files import write_json
from sa2va_rl.config import RewardNetConfig
from sa2va_rl.segmenters.mask_cache import Mask

WEIGHTS = "reward_net.safetensors"
SETTINGS = "reward_net.json"
SHADES = 0.2  # width of the local mean, as a share of the picture's width
CONTRAST = 5.0  # scales the picture's channel to about the range of the mask's


REWARD_NET_VERSION = 1  # raise when a trained reward network or a score changes


class RewardNet(nn.Module):
    """Predict the quality of masks.

    Args:
        config: size and width.
    """

    def __init__(self, config: RewardNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.layers = nn.Sequential(
            *_block(2, width),
            *_block(width, 2 * width),
            *_block(2 * width, 2 * width),
            *_block(2 * width, 4 * width),
        )
        # Mean pooling sees how much of the picture agrees, max pooling any strong disagreement.
        self.head = nn.Sequential(
            nn.Linear(8 * width, 2 * width), nn.SiLU(), nn.Linear(2 * width, 1)
        )

    def forward(self, pairs_N2HW: Tensor) -> Tensor:
        """Return the logits N of the quality of pairs as `inputs_of` makes them."""
        # Channels last takes a third less time in convolutions on a CPU.
        found_NCHW = self.layers(pairs_N2HW.contiguous(memory_format=torch.channels_last))
        pooled_NC = torch.cat([found_NCHW.mean((2, 3)), found_NCHW.amax((2, 3))], dim=1)
        return self.head(pooled_NC).squeeze(1)

    def quality(self, pairs_N2HW: Tensor) -> Tensor:
        """Return the quality N in [0, 1].

        It is the sigmoid of the mean logit of the pairs and of the pairs rotated by 180 degrees:
        this mean ranks the masks of a picture better than one view.
        """
        views_M2HW = torch.cat([pairs_N2HW, pairs_N2HW.flip((2, 3))])
        return self(views_M2HW).view(2, -1).mean(dim=0).sigmoid()


def _block(inside: int, outside: int) -> tuple[nn.Module, ...]:
    # Group norm, not batch norm: a score must not depend on the rest of the batch.
    return (
        nn.Conv2d(inside, outside, 3, stride=2, padding=1, bias=False),
        nn.GroupNorm(4, outside),
        nn.SiLU(),
    )


def inputs_of(image_HWC: NDArray[np.uint8], masks: Sequence[Mask] | Tensor, side: int) -> Tensor:
    """Return the network's input N2SS for a picture and N masks: `flattened` and `covered`."""
    cover_NSS = covered(masks, side)
    flat_SS = flattened(image_HWC, side).to(cover_NSS)
    return torch.stack([flat_SS.expand_as(cover_NSS), cover_NSS], dim=1)


def flattened(image_HWC: NDArray[np.uint8], side: int) -> Tensor:
    """Resize a picture to grey SS, subtract its local mean and multiply by `CONTRAST`.

    Args:
        image_HWC: RGB, 0 to 255.
        side: of the result, in pixels.
    """
    grey_HW = torch.from_numpy(image_HWC.mean(axis=2, dtype=np.float32) / 255.0)
    small_11SS = F.adaptive_avg_pool2d(grey_HW[None, None], side)
    window = 2 * round(side * SHADES / 2) + 1
    return CONTRAST * without_shades(small_11SS[0, 0], window)


def without_shades(grey_HW: Tensor, window: int) -> Tensor:
    """Subtract from each pixel the mean of the square around it; edge pixels are repeated.

    Args:
        grey_HW: of any range.
        window: side of the square in pixels, odd.
    """
    padded_11HW = F.pad(grey_HW[None, None], (window // 2,) * 4, mode="replicate")
    # The mean over columns of means over rows equals the mean of the square, ten times faster.
    rows_11HW = F.avg_pool2d(padded_11HW, (1, window), stride=1)
    return grey_HW - F.avg_pool2d(rows_11HW, (window, 1), stride=1)[0, 0]


def covered(masks: Sequence[Mask] | Tensor, side: int) -> Tensor:
    """Resize masks to NSS; a value is the share of the pixel that the mask covers.

    Args:
        masks: of one size; gradients pass through a float tensor NHW of soft masks.
        side: of the result, in pixels.
    """
    if not isinstance(masks, Tensor):
        masks = torch.from_numpy(np.stack(masks).astype(np.float32))
    height, width = masks.shape[-2:]
    return _shares(height, side).to(masks) @ masks @ _shares(width, side).T.to(masks)


@cache
def _shares(pixels: int, side: int) -> Tensor:
    """Return `adaptive_avg_pool2d` as a matrix [side, pixels], which is five times faster."""
    weights_SP = torch.zeros(side, pixels)
    for place in range(side):
        first, end = place * pixels // side, -(-(place + 1) * pixels // side)
        weights_SP[place, first:end] = 1 / (end - first)
    return weights_SP


class RewardNetJudge:
    """A trained network that scores masks."""

    def __init__(self, net: RewardNet) -> None:
        self.net = net.eval().requires_grad_(False)

    def __call__(self, image_HWC: NDArray[np.uint8], mask_HW: Mask) -> float:
        """Score one mask in [0, 1]."""
        return self.many(image_HWC, [mask_HW])[0]

    @torch.no_grad()
    def many(self, image_HWC: NDArray[np.uint8], masks: Sequence[Mask]) -> list[float]:
        """Score several masks of one picture."""
        pairs_N2HW = inputs_of(image_HWC, masks, self.net.config.side)
        scores: list[float] = self.net.quality(pairs_N2HW).tolist()
        return scores


def save_reward_net(net: RewardNet, folder: Path) -> None:
    """Write weights (safetensors) and settings (JSON)."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(net.state_dict(), folder / WEIGHTS)
    write_json(folder / SETTINGS, asdict(net.config))


def load_reward_net(folder: Path) -> RewardNet:
    """Read what `save_reward_net` wrote.

    Raises:
        FileNotFoundError: the folder holds no reward network.
        ValueError: a file cannot be read, or weights and settings do not fit each other.
    """
    for name in (WEIGHTS, SETTINGS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no reward network in {folder}: {name} is missing; train one")
    cure = "give reward_fit.path=RUN/checkpoints/final of a run of +exp=sa2va_reward_net"
    try:
        read = json.loads((folder / SETTINGS).read_text(encoding="utf-8-sig"))
        net = RewardNet(RewardNetConfig(**read))
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        said = f"{folder / SETTINGS} holds no settings of a reward network: {error}; {cure}"
        raise ValueError(said) from error
    try:
        net.load_state_dict(load_file(folder / WEIGHTS))
    except (RuntimeError, SafetensorError) as error:
        first = " ".join(line.strip() for line in str(error).splitlines()[:2])
        said = f"{folder / WEIGHTS} does not fit {SETTINGS}: {first}; {cure}"
        raise ValueError(said) from error
    return net
