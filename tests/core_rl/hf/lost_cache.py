"""The lost cache of transformers 4.53 to 5.23, planted in whatever release is installed."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from core_rl.hf.generation import cache_name
from core_rl.hf.recompute import checkpoint_activations
from tests.core_rl.hf.text_policy import build_model


def checkpointed(model: Any, reentrant: bool = False) -> Any:
    """Switch checkpointing on; layers that train throw the cache away, as those releases do."""
    checkpoint_activations(model, reentrant)
    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.register_forward_pre_hook(_forget, with_kwargs=True)
    return model


def release_loses_it() -> bool:
    """Tell whether the installed release itself loses its cache in that state."""
    model = build_model("llama")
    checkpoint_activations(model)
    with torch.no_grad():
        out = model.train()(torch.ones(1, 3, dtype=torch.long), use_cache=True)
    cache = out.get(cache_name(model))
    return cache is None or cache.get_seq_length() == 0


def _forget(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    lost = [name for name in ("cache", "past_key_values") if name in kwargs]
    if not (layer.training and layer.gradient_checkpointing):
        lost = []
    return args, kwargs | dict.fromkeys(lost)
