"""Activation checkpointing: activations are computed again in the backward pass, not kept."""

from __future__ import annotations

from typing import Any


def checkpoint_activations(model: Any, reentrant: bool = False) -> None:
    """Switch it on for a `PreTrainedModel`, under whichever name its release has for that.

    Older releases call it `gradient_checkpointing_enable`; later ones warn of that name.
    """
    new = getattr(model, "activation_checkpointing_enable", None)
    enable = model.gradient_checkpointing_enable if new is None else new
    enable({"use_reentrant": reentrant})
