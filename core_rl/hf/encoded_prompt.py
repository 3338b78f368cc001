"""Inputs of a prompt, and what is kept of it after encoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from core_rl.types import Query

Inputs = dict[str, Any]  # keyword arguments of a model's forward
Layers = list[tuple[Tensor, Tensor]]  # keys and values of each decoder layer, [1, heads, P, D]

# Inputs with one number a token, beside `input_ids`, and that number for a completion's tokens.
# They are known by name: a clip can have as many mel frames or patches as its prompt has tokens.
PER_TOKEN: Mapping[str, int] = {"attention_mask": 1, "token_type_ids": 0, "mm_token_type_ids": 0}


@dataclass(frozen=True)
class Prefix:
    """One prompt, encoded.

    Attributes:
        layers: keys and values of its tokens but the last, [1, heads, P - 1, D] a layer.
        ids: all its tokens, [P].
        last_position: rotary position of that token, the same on all axes.
    """

    layers: Layers
    ids: Tensor
    last_position: Tensor

    def detached(self) -> Prefix:
        """The same numbers without their graph."""
        layers = [(keys.detach(), values.detach()) for keys, values in self.layers]
        return replace(self, layers=layers)


@dataclass(frozen=True)
class EncodedPrompt:
    """B encoded prompts.

    Attributes:
        queries: the records; needed where the prompt is encoded again for every candidate.
        prefixes: what was kept of each; None where it is encoded again.
    """

    queries: Sequence[Query]
    prefixes: tuple[Prefix, ...] | None = None


def followed_by(
    inputs: Mapping[str, Any],
    ids_NT: Tensor,
    mask_NT: Tensor | None = None,
    per_token: Mapping[str, int] = PER_TOKEN,
) -> Inputs:
    """Return the inputs of N prompts with a completion behind each.

    Args:
        inputs: of the prompts only.  `position_ids` stay as they are.
        ids_NT: the completions.
        mask_NT: True on their real tokens; None = everywhere.
        per_token: as `PER_TOKEN`, for a model with inputs of other names.
    """
    real_NT = torch.ones_like(ids_NT) if mask_NT is None else mask_NT.long()
    longer = dict(inputs)
    longer["input_ids"] = torch.cat([inputs["input_ids"], ids_NT], dim=1)
    for name in per_token.keys() & inputs.keys():
        more_NT = (per_token[name] * real_NT).to(inputs[name].dtype)
        longer[name] = torch.cat([inputs[name], more_NT], dim=1)
    return longer
