"""Gradients of 0 for weights that a batch does not reach, such as an audio tower without sound.

Processes add their gradients up.  DDP waits for every gradient; DeepSpeed puts them into buckets in
the order of their arrival.  So all processes must have the same gradients in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def zero_gradients(parameters: Sequence[nn.Parameter]) -> Tensor | float:
    """Make a scalar 0 whose gradient for each parameter is 0; a number where there are none.

    Make it before the forward pass, and add it to the loss.  The backward pass takes what was made
    first last: the gradients of `parameters` are then complete at its end, in their order.
    """
    zero: Tensor | float = _ZeroGradients.apply(*parameters) if parameters else 0.0
    return zero


class _ZeroGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *parameters: Tensor) -> Tensor:
        ctx.like = [(parameter.shape, parameter.dtype) for parameter in parameters]
        return parameters[0].new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        return tuple(grads[0].new_zeros((), dtype=dtype).expand(shape) for shape, dtype in ctx.like)
