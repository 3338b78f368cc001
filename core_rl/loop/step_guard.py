"""Optimiser steps whose loss or gradient is not finite: never applied, counted, not too many.

One gradient of NaN makes all weights NaN, and Adam's averages with them: no later step mends that.
A step that is left out changes neither weights nor averages; the schedule goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from core_rl.config import OnNan
from core_rl.hardware import sum_over_ranks

log = logging.getLogger(__name__)

IN_A_ROW = 20  # steps left out after which nothing is learned any more


class StepGuard:
    """Leaves out the optimiser steps of a run that are not finite.

    Args:
        on_nan: leave such a step out, or end the run.
        scales_loss: the loss is scaled for fp16.  Whoever scales it leaves out a step whose scaled
            gradient overflows; that is how the scale is found, and is not counted here.

    Attributes:
        skipped: steps left out so far.
    """

    def __init__(self, on_nan: OnNan, scales_loss: bool) -> None:
        self.on_nan = on_nan
        self.scales_loss = scales_loss
        self.skipped = 0
        self._in_a_row = 0
        self._broken = False  # a loss of this step, on this process

    def spread(self, loss: Tensor, logp_BGT: Tensor) -> Tensor:
        """Return the loss of a micro-batch; one that is not finite makes its gradient NaN.

        Gradients are averaged over processes, so that all of them leave the step out.

        Args:
            loss: a number, with its graph.
            logp_BGT: what it was computed from: masks of the loss may keep NaN from the gradient.
        """
        if bool(loss.isfinite()):
            return loss
        self._broken = True
        return loss + torch.nan * logp_BGT.sum()

    def before_step(self, optimizer: Any, norm: Tensor | None, policy: nn.Module) -> None:
        """Drop gradients that are not finite, before they are clipped and applied.

        Args:
            optimizer: about to step.
            norm: of the gradient of the whole step, over all processes; None if DeepSpeed holds it.
            policy: learns.
        """
        parameters = list(policy.parameters())
        broken = torch.tensor(float(self._broken), device=parameters[0].device)
        self._broken = bool(sum_over_ranks(broken))
        if norm is None:
            # By itself ZeRO 1 and 2 look for such gradients in fp16 only.
            optimizer.check_grad_overflow = True
        elif self._broken or not (self.scales_loss or bool(norm.isfinite())):
            self._broken = True
            for parameter in parameters:
                parameter.grad = None  # optimisers pass over parameters without a gradient

    def after_step(self, step: int, optimizer: Any = None) -> None:
        """Count a step that was left out.

        Args:
            step: its number, from 1.
            optimizer: of DeepSpeed, which leaves steps out itself.

        Raises:
            ValueError: `trainer.on_nan` is `stop`, or too many in a row were left out.
        """
        broken = self._broken
        if optimizer is not None and not self.scales_loss:
            broken |= bool(optimizer.overflow)
        self._broken = False
        self._in_a_row = self._in_a_row + 1 if broken else 0
        if not broken:
            return
        self.skipped += 1
        said = f"step {step}: the loss or its gradient is not finite, and the step is not applied"
        cure = "lower trainer.lr or trainer.grad_clip, or train in bf16 or fp32 instead of fp16"
        if self.on_nan is OnNan.stop:
            raise ValueError(f"{said} (trainer.on_nan=stop); {cure}")
        if self._in_a_row >= IN_A_ROW:
            raise ValueError(
                f"{said}, like the {IN_A_ROW - 1} before it: nothing is learned; {cure}"
            )
        log.warning("%s (skipped so far: %d)", said, self.skipped)


def drop_non_finite(parameters: Iterable[nn.Parameter]) -> None:
    """Drop the gradients of a step, and log it, if one of them is not finite."""
    held = list(parameters)
    if all(p.grad is None or bool(p.grad.isfinite().all()) for p in held):
        return
    log.warning("the gradient is not finite, and the step is not applied")
    for parameter in held:
        parameter.grad = None


def leave_out_non_finite(optimizer: Optimizer) -> None:
    """Have an optimiser that steps without a closure leave out gradients that are not finite."""
    held = [p for group in optimizer.param_groups for p in group["params"]]
    optimizer.register_step_pre_hook(lambda *_: drop_non_finite(held))
