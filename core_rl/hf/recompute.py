"""Keep less of a forward pass for its backward pass, and compute the rest again there.

Half of what a decoder layer keeps costs next to nothing to compute: products of two kept tensors,
activation functions.  Most of the other half is the wide middle of its feed-forward part, one
matrix product away from the narrow tensor before it.  `operations_again` keeps neither; gradients
are the same to the bit.  `layers_again` keeps only a layer's input and runs the layer again, as
activation checkpointing does.

Both apply to the decoder only: media towers run once.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, saved_tensors_hooks
from torch.nn.functional import gelu, silu
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from core_rl.hf.shared_attention import Attend, attending

# How to make an operation's result from what the operation itself keeps for its backward pass.
_MAKE: dict[str, Callable[[Any], Tensor]] = {
    "MulBackward0": lambda node: node._saved_self * node._saved_other,
    "SiluBackward0": lambda node: silu(node._saved_self),
    "GeluBackward0": lambda node: gelu(node._saved_self, approximate=node._saved_approximate),
    "MmBackward0": lambda node: node._saved_self @ node._saved_mat2,
}
# What merely looks at the same numbers in another shape.
_VIEWS = ("ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0")


def operations_again() -> AbstractContextManager[Any]:
    """Inside, results of the operations in `_MAKE` are not kept where they can be made again."""
    return _OperationsAgain()


@contextmanager
def layers_again(decoder: nn.Module, attend: Attend, *, but_last: bool = False) -> Iterator[None]:
    """Inside, every layer of `decoder` keeps only its input.

    Args:
        decoder: whose layers are transformers' own.
        attend: stands in for their attention when they run again.  The graph holds it: it must not
            hold what the layers made.
        but_last: leave the last layer as it is, because it does not run to its end.
    """
    layers = [part for part in decoder.modules() if isinstance(part, GradientCheckpointingLayer)]
    layers = layers[: len(layers) - but_last]
    before = [vars(layer).get("forward") for layer in layers]
    for layer in layers:
        layer.forward = partial(_run_again_later, layer.forward, decoder, attend)
    try:
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            del layer.forward  # the class's own shows again
            if forward is not None:
                layer.forward = forward


def _run_again_later(
    forward: Callable[..., Any], decoder: nn.Module, attend: Attend, *args: Any, **more: Any
) -> Any:
    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), attending(decoder, attend)

    return checkpoint(
        forward, *args, use_reentrant=False, preserve_rng_state=False, context_fn=contexts, **more
    )


class _OperationsAgain(saved_tensors_hooks):
    def __init__(self) -> None:
        self.recipes: dict[Any, _Recipe] = {}  # one for all that keep the same result
        super().__init__(self._pack, _unpack)

    def __exit__(self, *args: object) -> None:
        super().__exit__(*args)
        self.recipes.clear()

    def _pack(self, saved: Tensor) -> Tensor | tuple[_Recipe, torch.Size]:
        node: Any = saved.grad_fn
        while type(node).__name__ in _VIEWS:
            node = node.next_functions[0][0]
        # An operation keeps both of its operands only if both take a gradient.
        if type(node).__name__ not in _MAKE or None in [into for into, _ in node.next_functions]:
            return saved.detach()  # with its graph, a result would hold itself
        if node not in self.recipes:
            self.recipes[node] = _Recipe(node)
        return self.recipes[node], saved.shape


def _unpack(kept: Tensor | tuple[_Recipe, torch.Size]) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    recipe, shape = kept
    return recipe.made().view(shape)


class _Recipe:
    """Make the result of a node of the graph again, once.

    The result is kept until the node's own backward pass is done; nothing needs it afterwards.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.result: Tensor | None = None
        # Weak, because the node holds its hook and the recipe holds the node.
        me = weakref.ref(self)
        node.register_hook(lambda *_: _forget(me()))

    def made(self) -> Tensor:
        if self.result is None:
            with torch.no_grad():
                self.result = _MAKE[type(self.node).__name__](self.node)
        return self.result


def _forget(recipe: _Recipe | None) -> None:
    if recipe is not None:
        recipe.result = None


def checkpoint_activations(model: Any, reentrant: bool = False) -> None:
    """Switch activation checkpointing on for a model, under the name that its release has.

    Older releases call it `gradient_checkpointing_enable`; later ones warn of that name.
    """
    new = getattr(model, "activation_checkpointing_enable", None)
    enable = model.gradient_checkpointing_enable if new is None else new
    enable({"use_reentrant": reentrant})
