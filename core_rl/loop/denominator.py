"""What the loss of an optimiser step is divided by, over all its micro-batches and processes.

Gradients must not depend on how queries are split into micro-batches and over processes.  When the
first micro-batch is differentiated, the candidates of later ones are not drawn yet.  So every
micro-batch is divided by the units of the first, and the gradients of the step are corrected once
all units are known.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import Any

import torch
from torch import nn

from core_rl.hardware import mean_over_ranks


class Denominator:
    """Counts the learning units of an optimiser step."""

    def __init__(self) -> None:
        self._units: list[float] = []  # of each micro-batch of this process
        self._divisor = 1.0

    @property
    def micro_batches(self) -> int:
        """How many were added since the last optimiser step."""
        return len(self._units)

    def add(self, units: float, device: torch.device) -> float:
        """Note a micro-batch and return what its loss is divided by; all processes must ask.

        The loop then averages gradients over micro-batches and processes.
        """
        self._units.append(units)
        if len(self._units) == 1:
            self._divisor = mean_over_ranks(units, device) or 1.0
        return self._divisor

    def correction(self, device: torch.device) -> float:
        """Factor for the gradients of the step, whose micro-batches are all added; starts anew.

        All processes must ask.
        """
        units, self._units = self._units, []
        if len(units) == 1:
            return 1.0  # the divisor was exact
        mean = mean_over_ranks(fmean(units), device)
        return self._divisor / mean if mean > 0 else 1.0


def scale_gradients(parameters: Iterable[nn.Parameter], factor: float) -> None:
    """Multiply gradients in place."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(factor)


def scale_sharded_gradients(optimizer: Any, factor: float) -> None:
    """Have DeepSpeed's optimiser multiply the gradients that it holds in parts.

    It divides them by the loss scale before it clips them.  `restore_loss_scale` undoes this.
    """
    optimizer.external_loss_scale = float(optimizer.loss_scale) / factor
    optimizer.custom_loss_scaler = True


def restore_loss_scale(optimizer: Any) -> None:
    """Give DeepSpeed's optimiser its own loss scale back, after the step."""
    optimizer.custom_loss_scaler = False
