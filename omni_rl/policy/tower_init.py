"""Data-dependent initialisation of new vision and audio towers.

The outputs of a randomly initialised tower differ between clips only in a few directions of small
variance, which a thinker of a million parameters needs hundreds of steps to find.  The last linear
layer is therefore set so that the features of a sample have mean 0 and equal variance in every
direction, at the scale of word embeddings (as in arXiv 1511.06422, with full whitening).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SCALE = 0.3  # standard deviation of a feature; word embeddings start near .09
FLOOR = 1e-4  # of the largest variance; smaller ones count as this


@torch.no_grad()
def whiten_towers(model: Any, inputs: dict[str, Any]) -> None:
    """Whiten the vision and the audio tower on a batch with video and sound."""
    video = model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"])
    audio = model.get_audio_features(inputs["input_features"], inputs["feature_attention_mask"])
    _whiten(_last_linear(model, "visual.merger.mlp.2"), torch.cat(list(video.pooler_output)))
    _whiten(_last_linear(model, "audio_tower.proj"), audio.last_hidden_state.flatten(0, -2))


def _last_linear(model: nn.Module, suffix: str) -> nn.Linear:
    # The towers are nested differently in releases of transformers; the end of the name is equal.
    found = [module for name, module in model.named_modules() if name.endswith(suffix)]
    assert len(found) == 1 and isinstance(found[0], nn.Linear), suffix
    return found[0]


def _whiten(linear: nn.Linear, features_ND: Tensor) -> None:
    mean_D = features_ND.mean(0)
    variance_D, axes_DD = torch.linalg.eigh(torch.cov(features_ND.T))
    spread_D = variance_D.clamp(min=FLOOR * float(variance_D.max())).rsqrt()
    turn_DD = SCALE * axes_DD @ torch.diag(spread_D) @ axes_DD.T
    linear.weight.copy_(turn_DD @ linear.weight)
    linear.bias.copy_(turn_DD @ (linear.bias - mean_D))
