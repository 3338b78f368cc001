"""Faults of multimodal rollouts, planted one at a time in a real thinker: what proves the doctor.

Each was seen in some trainer or is one line away from what trainers do.  A fault takes a healthy
policy and spoils it; `says` is part of the cause that the doctor must name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from core_rl.hf.encoded_prompt import Inputs
from omni_rl.config import Blank
from omni_rl.data.record import Record
from omni_rl.doctor.media_calls import thinker_of
from omni_rl.policy.patches import PatchSpec
from omni_rl.policy.policy import OmniPolicy
from tests.omni_rl.doctor.faulty_policies import (
    Expands,
    ForwardLosesFlag,
    Generates,
    PositionsLoseFlag,
    Spoil,
    Warps,
    after_collate,
    for_many,
    forgetful,
    inside_forward,
    turned_into,
    without,
)


@dataclass(frozen=True)
class Fault:
    """A way to ruin a run.

    Attributes:
        name: for the matrix.
        spoil: plants it into a policy that nothing else uses.
        says: text that the cause must contain.
        together: whether sound is interleaved with video.
        clips: clips of the first record.
    """

    name: str
    spoil: Spoil
    says: str
    together: bool = False
    clips: int = 1


# -- single faults ---------------------------------------------------------------------------------


def _swap_videos(inputs: Inputs, count: int) -> Inputs:
    return inputs | {
        "pixel_values_videos": torch.cat(inputs["pixel_values_videos"].chunk(count)[::-1])
    }


def _swap_sounds(inputs: Inputs, count: int) -> Inputs:
    return inputs | {"input_features": inputs["input_features"].flip(0)}


def _swap_clips(inputs: Inputs) -> Inputs:
    """Exchange the first record's two clips."""
    first, second, *rest = inputs["pixel_values_videos"].split(
        inputs["video_grid_thw"].prod(-1).tolist()
    )
    return inputs | {"pixel_values_videos": torch.cat([second, first, *rest])}


def _first_prompt(inputs: Inputs, count: int) -> Inputs:
    return inputs | {
        name: inputs[name][:1].expand_as(inputs[name]).clone()
        for name in ("input_ids", "attention_mask")
    }


def _cut(tokens: int) -> Callable[[Inputs], Inputs]:
    def change(inputs: Inputs) -> Inputs:
        return inputs | {
            name: inputs[name][:, -tokens:] for name in ("input_ids", "attention_mask")
        }

    return change


def _noise(inputs: Inputs) -> Inputs:
    noise = torch.randn(
        inputs["pixel_values_videos"].shape, generator=torch.Generator().manual_seed(0)
    )
    return inputs | {"pixel_values_videos": noise}


def _silence(inputs: Inputs) -> Inputs:
    return inputs | {"input_features": torch.zeros_like(inputs["input_features"])}


def _halved(inputs: Inputs) -> Inputs:
    return inputs | {"pixel_values_videos": 0.5 * inputs["pixel_values_videos"]}


def _backwards(inputs: Inputs) -> Inputs:
    """Run every clip backwards: steps of equal size, turned around."""
    clips = inputs["pixel_values_videos"].split(inputs["video_grid_thw"].prod(-1).tolist())
    turned = [
        torch.cat(clip.chunk(int(grid[0]))[::-1])
        for clip, grid in zip(clips, inputs["video_grid_thw"], strict=True)
    ]
    return inputs | {"pixel_values_videos": torch.cat(turned)}


def _slow(inputs: Inputs) -> Inputs:
    return inputs | {"video_second_per_grid": 2 * inputs["video_second_per_grid"]}


def _doubled(inputs: Inputs) -> Inputs:
    """Give each sound twice, to one row of placeholders."""
    return inputs | {
        name: inputs[name].repeat_interleave(2, dim=0)
        for name in ("input_features", "feature_attention_mask")
    }


def _hidden(policy: OmniPolicy) -> OmniPolicy:
    """Mask the video out of attention."""
    token = thinker_of(policy.model).config.video_token_id

    def change(inputs: Inputs) -> Inputs:
        mask = inputs["attention_mask"].masked_fill(inputs["input_ids"] == token, 0)
        return inputs | {"attention_mask": mask}

    return after_collate(change)(policy)


def _right_padding(inputs: Inputs, count: int) -> Inputs:
    """Move the padding to the right of each prompt."""
    moved = {}
    for name in ("input_ids", "attention_mask"):
        pads = (inputs["attention_mask"] == 0).sum(-1).tolist()
        rows = [row.roll(-pad) for row, pad in zip(inputs[name], pads, strict=True)]
        moved[name] = torch.stack(rows)
    return inputs | moved


def _two_sounds(policy: OmniPolicy) -> OmniPolicy:
    """List the clip's own track once more, as an item of its own."""
    items = policy.builder.items

    def doubled(record: Record) -> Any:
        return [
            one
            for item in items(record)
            for one in ((item, item) if item.kind == "audio" else (item,))
        ]

    policy.builder.items = doubled  # type: ignore[method-assign]
    return policy


def _blank(policy: OmniPolicy) -> OmniPolicy:
    return policy.blank(Blank.all)


def _unsuppressed(policy: OmniPolicy) -> OmniPolicy:
    policy.suppress_ids = policy.suppress_ids[:0]
    return policy


def _dead_tower(policy: OmniPolicy) -> OmniPolicy:
    """Leave a vision tower that says the same of everything."""
    merger = thinker_of(policy.model).model.visual.merger
    with torch.no_grad():
        for parameter in merger.parameters():
            parameter.zero_()
    return policy


def _shuffled_embeddings(policy: OmniPolicy) -> OmniPolicy:
    """Turn the embeddings of a prompt's video around after they were put in."""
    thinker = thinker_of(policy.model)
    last: dict[str, Tensor] = {}

    def note(module: nn.Module, args: Any, inputs: Inputs) -> None:
        last["ids"] = inputs["input_ids"]

    def turn(module: nn.Module, args: Any, inputs: Inputs) -> Any:
        embeds = inputs["inputs_embeds"].clone()
        at = last["ids"] == thinker.config.video_token_id
        embeds[at] = embeds[at].flip(0)
        return args, inputs | {"inputs_embeds": embeds}

    thinker.register_forward_pre_hook(note, with_kwargs=True)
    thinker.model.language_model.register_forward_pre_hook(turn, with_kwargs=True)
    return policy


def _other_mean(policy: OmniPolicy) -> OmniPolicy:
    """Normalise colours as another family of models does."""
    spec = PatchSpec(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    processor = replace(policy.processor, patches=spec)
    return OmniPolicy(policy.model, processor, policy.config, policy.spans)


MEDIA_FAULTS: tuple[Fault, ...] = (
    Fault(
        "missing pixel values", after_collate(without("pixel_values_videos")), "video features do"
    ),
    Fault("missing audio features", after_collate(without("input_features")), "audio features do"),
    Fault(
        "pixel values dropped in a wrapped forward",
        inside_forward(without("pixel_values_videos")),
        "video features reach the forward and its tower never runs",
    ),
    Fault(
        "audio features dropped in a wrapped forward",
        inside_forward(without("input_features")),
        "audio features reach the forward and its tower never runs",
    ),
    Fault(
        "audio flag lost in forward",
        turned_into(ForwardLosesFlag),
        "use_audio_in_video differs",
        together=True,
    ),
    Fault(
        "audio flag lost in positions",
        turned_into(PositionsLoseFlag),
        "use_audio_in_video differs",
        together=True,
    ),
    Fault("audio fed twice, as two items", _two_sounds, "audio is fed twice"),
    Fault("audio fed twice, as features", after_collate(_doubled), "audio is fed twice"),
    Fault(
        "num_return_sequences with two clips",
        turned_into(Expands),
        "several clips a sample are repeated clip by clip",
        clips=2,
    ),
    Fault("media token sampled", _unsuppressed, "media tokens can be sampled"),
    Fault("truncated media span", after_collate(_cut(90)), "cut through a media span"),
    Fault("video of another sample", for_many(_swap_videos), "media of another sample"),
    Fault("sound of another sample", for_many(_swap_sounds), "media of another sample"),
    Fault("two clips in the wrong order", after_collate(_swap_clips), "in another order", clips=2),
    Fault("first prompt reused", for_many(_first_prompt), "the prompt of another record"),
    Fault("noise for video", after_collate(_noise), "not those of any file"),
    Fault("silence for sound", after_collate(_silence), "not those of any file"),
    Fault("blank media left on", _blank, "not those of any file"),
    Fault("pixel values scaled", after_collate(_halved), "not those of any file"),
    Fault("frames backwards", after_collate(_backwards), "not those of any file"),
    Fault("normalised for another model", _other_mean, "belongs to another checkpoint"),
    Fault("frames half as fast", after_collate(_slow), "video_second_per_grid is not"),
    Fault("video masked out of attention", _hidden, "attention mask hides media"),
    Fault("vision tower that says nothing", _dead_tower, "change nothing"),
    Fault("embeddings turned around", _shuffled_embeddings, "not what the towers said"),
    Fault("right padding", for_many(_right_padding), "right padding"),
    Fault("generate() under checkpointing", forgetful(False), "lost cache"),
    Fault("generate() under reentrant checkpointing", forgetful(True), "lost cache"),
    Fault("log-probs from warped scores", turned_into(Warps), "top_k"),
)

# Other ways to do it right: the doctor must find nothing.
HEALTHY: dict[str, Spoil] = {
    "as shipped": lambda policy: policy,
    "drawn by generate()": turned_into(Generates),
}
