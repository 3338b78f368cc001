"""Media items as they arrive in a forward of the thinker, to be compared with files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from omni_rl.config import MediaConfig
from omni_rl.doctor.media_calls import Call, thinker_of
from omni_rl.doctor.media_expected import Expected, Item, mel_distance, pixel_distance, pixels
from omni_rl.policy.processor import Processor
from omni_rl.policy.tiny import token_id

TOKENS = {"video": "<|VIDEO|>", "image": "<|IMAGE|>", "audio": "<|AUDIO|>"}
VALUES = {"video": "pixel_values_videos", "image": "pixel_values", "audio": "input_features"}
GRIDS = {"video": "video_grid_thw", "image": "image_grid_thw"}


@dataclass(frozen=True)
class Scene:
    """What the audit uses beside the calls.

    Attributes:
        model: the policy's model.
        processor: tokenizer, mel front end and patch sizes.
        media: settings of the run.
        everyone: the records that are checked, once each.
    """

    model: Any
    processor: Processor
    media: MediaConfig
    everyone: tuple[Expected, ...]

    def id_of(self, token: str) -> int:
        return token_id(self.processor.tokenizer, token)

    def media_ids(self, call: Call) -> Tensor:
        """Ids of the placeholders, on the device of the call's tensors."""
        return torch.tensor([self.id_of(token) for token in TOKENS.values()]).to(call.ids)


@dataclass(frozen=True, eq=False)
class Arriving:
    """One item as it reaches the model.

    Attributes:
        values: frames_THWC in [0, 1], or mel_MF.
        tokens: number of its tokens.
        grid: of its patches, [3]; None for sounds.
    """

    values: Tensor
    tokens: int
    grid: Tensor | None = None


def arriving_at(call: Call, kind: str, scene: Scene) -> list[Arriving]:
    """List the items of one kind that arrive, in order."""
    values = call.get(VALUES[kind])
    if values is None or values.numel() == 0:
        return [_known(said_FD, call, scene) for said_FD in call.encoded_before(kind)]
    if kind == "audio":
        mask = call.get("feature_attention_mask")
        masks = torch.ones_like(values[:, 0]) if mask is None else mask
        cut = [mel[:, kept.bool()] for mel, kept in zip(values, masks, strict=False)]
        return [Arriving(mel, audio_tokens(mel.shape[1], scene)) for mel in cut]
    grids, spec = call.get(GRIDS[kind]), scene.processor.patches
    if grids is None or int(grids.prod(-1).sum()) != len(values):
        return [Arriving(values, len(values) // spec.merge**2)]
    return [
        Arriving(pixels(rows, tuple(grid.tolist()), spec), spec.num_tokens(tuple(grid)), grid)
        for rows, grid in zip(values.split(grids.prod(-1).tolist()), grids, strict=True)
    ]


def _known(said_FD: Tensor, call: Call, scene: Scene) -> Arriving:
    """Find the video whose tower outputs these are, computed before the call."""
    for one in call.encoded:
        if torch.equal(one.said_FD, said_FD):
            grid = torch.tensor(one.grid)
            return Arriving(pixels(one.rows, one.grid, scene.processor.patches), len(said_FD), grid)
    return Arriving(said_FD, len(said_FD))


def distance(values: Tensor, item: Item) -> float:
    """Distance of features from a file."""
    return mel_distance(values, item) if item.kind == "audio" else pixel_distance(values, item)


def tokens_of(item: Item, scene: Scene) -> int:
    """Count the tokens that a file becomes."""
    if item.mel_MF is not None:
        return audio_tokens(item.mel_MF.shape[1], scene)
    assert item.frames_THWC is not None
    spec = scene.processor.patches
    frames, height, width = item.frames_THWC.shape[:3]
    steps = -(-frames // spec.temporal)
    return spec.num_tokens((steps, height // spec.patch, width // spec.patch))


def audio_tokens(frames: int, scene: Scene) -> int:
    """Count the tokens of a sound as the model's own audio tower does."""
    tower = thinker_of(scene.model).model.audio_tower
    return int(tower._get_feat_extract_output_lengths(torch.tensor(frames))[1])


def rope(call: Call, scene: Scene, use_audio_in_video: bool) -> Tensor:
    """Rotary positions [3, N, P] as the model's class derives them from the tokens."""
    thinker = thinker_of(scene.model)
    mask = call.get("feature_attention_mask")
    grids: dict[str, Tensor | None] = {}
    for kind in GRIDS:
        found = [one.grid for one in arriving_at(call, kind, scene) if one.grid is not None]
        grids[kind] = torch.stack(found).to(call.ids) if found else call.get(GRIDS[kind])
    try:
        positions, _ = type(thinker).get_rope_index(
            thinker,
            call.ids,
            grids["image"],
            grids["video"],
            call.mask.long(),
            use_audio_in_video,
            None if mask is None else mask.sum(-1),
            call.get("video_second_per_grid"),
        )
    except (IndexError, RuntimeError, TypeError, ValueError, StopIteration):
        # Tokens and features disagree, so that the model finds no positions.
        return torch.full((3, *call.ids.shape), -1, device=call.ids.device)
    return positions.long()
