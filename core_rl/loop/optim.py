"""AdamW and its learning rate: warm-up and decay within each phase of the curriculum."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from core_rl.objective.curriculum import Curriculum


def build_optimizer(module: nn.Module, lr: float, weight_decay: float = 0.0) -> AdamW:
    """AdamW over the trainable parameters; weight decay spares vectors and scalars.

    Raises:
        ValueError: nothing in the module is trainable.
    """
    groups = parameter_groups(module, weight_decay)
    if not groups:
        raise ValueError("the policy has no trainable parameter: everything in it is frozen")
    # On a CPU one kernel in place of a dozen, and nothing of the size of a weight in between.
    on_cpu = all(p.device.type == "cpu" for p in module.parameters())
    optimizer = AdamW(groups, lr=lr, fused=on_cpu or None)
    # Where a loss was scaled, Lightning unscales before it clips; the kernel need not.
    optimizer._step_supports_amp_scaling = False
    trained = [p for p in module.parameters() if p.requires_grad]

    def count_the_write(*_: object) -> None:
        # Neither a fused kernel nor a step on flat buffers shows in the weights' own versions, by
        # which others tell whether what they hold is out of date.
        for parameter in trained:
            torch.autograd.graph.increment_version(parameter)

    optimizer.register_step_post_hook(count_the_write)
    return optimizer


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Split trainable parameters into matrices (decayed) and the rest (biases, norms; not)."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    matrices = [p for p in trainable if p.ndim >= 2]
    rest = [p for p in trainable if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_schedule(
    optimizer: AdamW, curriculum: Curriculum, warmup: float, schedule: str
) -> LambdaLR:
    """Make the learning-rate schedule, to be stepped once an optimiser step; see `lr_factor`."""
    return LambdaLR(optimizer, lambda step: lr_factor(step, curriculum, warmup, schedule))


def lr_factor(step: int, curriculum: Curriculum, warmup: float, schedule: str) -> float:
    """Learning rate of optimiser step `step` as a multiple of the base rate; above 0.

    Each phase climbs linearly over the first `warmup` share of its steps, then falls as a cosine
    towards 0 (`cosine`) or stays (`constant`), all times the phase's `lr_scale`.  Past the end,
    where schedulers look once, the last step's factor holds.
    """
    step = min(step, curriculum.total_steps - 1)
    phase = curriculum.phase_at(step)
    done = step - phase.start
    climb = math.ceil(warmup * phase.steps - 1e-9)
    scale = phase.config.lr_scale
    if done < climb:
        return scale * (done + 1) / (climb + 1)
    if schedule == "constant":
        return scale
    assert schedule == "cosine", schedule
    share = (done - climb) / max(phase.steps - climb, 1)
    return scale * 0.5 * (1 + math.cos(math.pi * share))
