"""AdamW and its learning rate: warm-up and decay within each phase of the curriculum.

Half-precision weights are trained through float32 masters, as DeepSpeed trains them (Micikevicius
et al. 2018, arXiv 1710.03740, section 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from core_rl.objective.curriculum import Curriculum

HALVES = (torch.bfloat16, torch.float16)


def build_optimizer(
    module: nn.Module, lr: float, weight_decay: float = 0.0, *, masters: bool = True
) -> Optimizer:
    """AdamW over the trainable parameters; weight decay spares vectors and scalars.

    Args:
        module: holds them.
        lr: base rate.
        weight_decay: of matrices.
        masters: keep float32 copies of half-precision weights; False under DeepSpeed, which does.

    Raises:
        ValueError: nothing in the module is trainable.
    """
    groups = parameter_groups(module, weight_decay)
    if not groups:
        raise ValueError("the policy has no trainable parameter: everything in it is frozen")
    # The fused kernel is faster on a CPU and allocates no temporary tensors.
    on_cpu = all(p.device.type == "cpu" for p in module.parameters())
    halves = any(p.requires_grad and p.dtype in HALVES for p in module.parameters())
    if masters and halves:
        optimizer: Optimizer = MasterAdamW(groups, lr=lr, fused=on_cpu or None)
    else:
        optimizer = AdamW(groups, lr=lr, fused=on_cpu or None)
    # Lightning has unscaled the gradients of a scaled loss before; the kernel must not do it again.
    vars(optimizer)["_step_supports_amp_scaling"] = False
    trained = [p for p in module.parameters() if p.requires_grad]

    def count_the_write(*_: object) -> None:
        # Fused and flat-buffer steps do not bump `Tensor._version`, by which the rollout engine
        # decides when to send weights again.
        for parameter in trained:
            torch.autograd.graph.increment_version(parameter)

    optimizer.register_step_post_hook(count_the_write)
    return optimizer


class MasterAdamW(Optimizer):
    """AdamW whose steps go to float32 masters; the weights are the masters, rounded.

    In bfloat16 a step of 5e-7 on a weight of .01 is lost: the next larger number is 4e-5 away.

    Args:
        groups: of parameters, of any floating type.
        options: of AdamW.

    Attributes:
        masters: float32 copy of each parameter.
    """

    def __init__(self, groups: list[dict[str, Any]], **options: Any) -> None:
        weights: list[nn.Parameter] = [p for group in groups for p in group["params"]]
        self.masters = {p: p.detach().float().clone() for p in weights}
        copies = [
            {**group, "params": [self.masters[p] for p in group["params"]]} for group in groups
        ]
        self._adamw = AdamW(copies, **options)
        super().__init__(groups, self._adamw.defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for mine, inner in zip(self.param_groups, self._adamw.param_groups, strict=True):
            inner |= {name: value for name, value in mine.items() if name != "params"}
        for weight, master in self.masters.items():
            master.grad = None if weight.grad is None else weight.grad.float()
        self._adamw.step()
        for weight, master in self.masters.items():
            weight.copy_(master)
            master.grad = None
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {**self._adamw.state_dict(), "masters": list(self.masters.values())}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        inner = {name: state_dict[name] for name in ("state", "param_groups")}
        self._adamw.load_state_dict(inner)
        for mine, loaded in zip(self.param_groups, state_dict["param_groups"], strict=True):
            mine |= {name: value for name, value in loaded.items() if name != "params"}
        for master, saved in zip(self.masters.values(), state_dict["masters"], strict=True):
            master.copy_(saved)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split trainable parameters into matrices (decayed) and the rest (biases, norms; not)."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    matrices = [p for p in trainable if p.ndim >= 2]
    rest = [p for p in trainable if p.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_schedule(
    optimizer: Optimizer, curriculum: Curriculum, warmup: float, schedule: str
) -> LambdaLR:
    """Make the learning-rate schedule, to be stepped once an optimiser step; see `lr_factor`."""
    return LambdaLR(optimizer, lambda step: lr_factor(step, curriculum, warmup, schedule))


def lr_factor(step: int, curriculum: Curriculum, warmup: float, schedule: str) -> float:
    """Learning rate of optimiser step `step` as a multiple of the base rate; above 0.

    In each phase it rises linearly over the first `warmup` share of the steps, then falls as a
    cosine towards 0 (`cosine`) or stays (`constant`), times the phase's `lr_scale`.  Schedulers ask
    once past the end and get the factor of the last step.
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
