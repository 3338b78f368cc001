"""Activation checkpointing goes on without a warning, under either of its names."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from core_rl.hf.checkpointing import checkpoint_activations
from tests.core_rl.hf.text_policy import build_policy


class OldName:
    """As models of older releases are called."""

    asked: Any = None

    def gradient_checkpointing_enable(self, options: dict[str, bool]) -> None:
        self.asked = options


@pytest.mark.parametrize("reentrant", [False, True])
def test_every_layer_is_computed_again(reentrant: bool) -> None:
    model: Any = build_policy().model
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpoint_activations(model, reentrant)
    layers = [m for m in model.modules() if hasattr(m, "gradient_checkpointing")]
    assert layers and all(layer.gradient_checkpointing for layer in layers)
    options = [layer._gradient_checkpointing_func.keywords for layer in layers]
    assert options == [{"use_reentrant": reentrant}] * len(layers)


def test_releases_that_know_the_older_name_only() -> None:
    model = OldName()
    checkpoint_activations(model)
    assert model.asked == {"use_reentrant": False}
