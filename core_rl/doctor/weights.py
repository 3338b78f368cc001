"""Does the training signal reach the weights?  Checks that hold for any policy of the loop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core_rl.doctor.findings import Finding, Verdict, at_most, equals, finding, skipped
from core_rl.types import Reference

SAMPLED = 4096  # elements a tensor that are compared before and after a step
UNTOUCHED = 0.1  # share of trainable tensors that a model may leave unused (special embeddings)
ADAPTERS = "the reference is the policy with its adapters as they were"
# Share of weights with a gradient that a step must move.  Healthy steps in float32, and with
# adapters, move all; updates that bfloat16 rounds away, a clip norm near 0 or a rate that is far
# too small leave 1 to 5 %.
FEW_MOVE = 0.5


# -- weights and optimiser -----------------------------------------------------------------------


def weights_finite(module: nn.Module) -> Finding:
    """Check that no weight is NaN or infinite."""
    broken = [name for name, p in module.named_parameters() if not bool(p.isfinite().all())]
    return equals(
        "weights/not_finite",
        len(broken),
        0,
        f"NaN or infinite weights in {len(broken)} tensors, the first {_first(broken)}",
        "start from a checkpoint that is whole; after an update: lower trainer.lr or "
        "trainer.grad_clip, or train in bf16 instead of fp16",
    )


def weight_findings(module: nn.Module) -> list[Finding]:
    """Check that weights are finite and that some of them train."""
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    every = sum(p.numel() for p in module.parameters())
    return [
        weights_finite(module),
        finding(
            "weights/trainable_share",
            trainable / max(every, 1),
            "> 0",
            trainable > 0,
            "frozen parameters: nothing in the policy requires a gradient",
            "unfreeze what should learn (requires_grad_(True)), or give model.lora.r above 0",
        ),
    ]


def _first(names: Sequence[str]) -> str:
    return names[0] if names else "none"


def optimizer_findings(module: nn.Module, optimizer: torch.optim.Optimizer) -> list[Finding]:
    """Check that the optimiser holds exactly what should train, at a rate above 0."""
    held = {id(p): p for group in optimizer.param_groups for p in group["params"]}
    own = {id(p) for p in module.parameters()}
    missing = [n for n, p in module.named_parameters() if p.requires_grad and id(p) not in held]
    strange = sum(1 for index in held if index not in own)
    return [
        equals(
            "optimizer/missing",
            len(missing),
            0,
            f"{len(missing)} trainable parameters are not in the optimiser, the first "
            f"{_first(missing)}: they get gradients and never change",
            "build the optimiser after adapters, unfreezing and moving to the device, from "
            "module.parameters()",
        ),
        equals(
            "optimizer/strange",
            strange,
            0,
            f"the optimiser holds {strange} parameters that are not the policy's: it trains a copy",
            "build the optimiser from the very module that computes the loss",
        ),
        rate_finding(optimizer),
    ]


def rate_finding(optimizer: torch.optim.Optimizer) -> Finding:
    """Check the rate of the next step; this project's schedules stay above 0 to their end."""
    rate = float(max((group["lr"] for group in optimizer.param_groups), default=0.0))
    base = float(max((group.get("initial_lr", 0.0) for group in optimizer.param_groups), default=0))
    cause = f"the learning rate is {rate:g}: weights cannot change sensibly"
    cure = "give trainer.lr above 0 and a schedule that starts above 0"
    if rate == 0 < base:
        cause = (
            f"the scheduler holds the learning rate at 0 (base rate {base:g}): no weight changes"
        )
        cure = "let the factor of the schedule be above 0 at every step, and step it once a step"
    healthy = 0 < rate < math.inf
    return finding("optimizer/learning_rate", rate, "> 0, finite", healthy, cause, cure)


def finite_findings(metrics: Mapping[str, Tensor], precision: str) -> list[Finding]:
    """Check the loss and the gradient's norm of a step, as they were logged.

    Args:
        metrics: by name.
        precision: of the run; in fp16 steps whose gradient overflows are skipped on purpose.
    """
    names = {"loss/finite": "train/loss", "gradient/finite": "train/grad_norm"}
    if precision.startswith("16"):
        del names["gradient/finite"]
    return [
        finding(
            check,
            (figure := float(metrics[name])),
            "finite",
            math.isfinite(figure),
            f"{name} is {figure}: NaN or infinite log-probs, advantages or weights",
            "look at weights/not_finite and the rewards; lower trainer.lr or trainer.grad_clip; "
            "train in bf16 or fp32 instead of fp16",
        )
        for check, name in names.items()
        if name in metrics
    ]


def gradient_findings(module: nn.Module, has_signal: bool) -> list[Finding]:
    """Check the gradients between backward and the optimiser's step.

    Args:
        module: the policy.
        has_signal: whether any group of the accumulated batch was mixed; without one a gradient of
            0 is right.
    """
    training = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    grads = [(name, p.grad) for name, p in training if p.grad is not None]
    if not grads:
        return [
            finding(
                "gradient/norm",
                0.0,
                "> 0, finite",
                not has_signal,
                "no parameter has a gradient: the loss does not reach the policy (log-probs were "
                "detached or taken under no_grad, or all is frozen)",
                "compute the loss from policy.log_probs with gradients enabled; with reentrant "
                "checkpointing call model.enable_input_require_grads()",
            )
        ]
    norm = float(torch.stack([grad.detach().float().norm() for _, grad in grads]).norm())
    finite = math.isfinite(norm)
    untouched = [name for name, p in training if p.grad is None]
    cause = (
        "the gradient is not finite: overflow in half precision, log of 0, or NaN inputs"
        if not finite
        else "the gradient is 0 although rewards differ inside groups: advantages or masks are 0, "
        "the loss is detached from the policy, or ratios are all clipped"
    )
    return [
        finding(
            "gradient/norm",
            norm,
            "> 0, finite",
            finite and (norm > 0 or not has_signal),
            cause,
            "look at rollout/mixed_share, train/clip_fraction and the loss mask; train in bf16 or "
            "fp32 instead of fp16",
        ),
        at_most(
            "gradient/untouched_share",
            len(untouched) / len(training),
            UNTOUCHED,
            f"{len(untouched)} of {len(training)} trainable tensors have no gradient, the first "
            f"{_first(untouched)}: that part is not in the loss's graph",
            "freeze what is meant to stay; otherwise see that its output reaches the loss; with "
            "reentrant checkpointing call model.enable_input_require_grads()",
            Verdict.warn,
        ),
    ]


@dataclass(frozen=True)
class WeightSample:
    """A few elements of every trainable tensor before a step.

    Attributes:
        held: the tensors that the step changes, by name.
        values: their elements.
        moving: True where the gradient is not 0.
        least: share of those that the step must move.
    """

    held: dict[str, Tensor]
    values: dict[str, Tensor]
    moving: dict[str, Tensor]
    least: float = FEW_MOVE


@torch.no_grad()
def sample_weights(
    module: nn.Module, masters: Mapping[nn.Parameter, Tensor] | None = None
) -> WeightSample:
    """Note elements of each trainable tensor and which of them have a gradient.

    Args:
        module: the policy, after the backward pass.
        masters: float32 copies that the optimiser steps in place of some parameters.
    """
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad and p.grad is not None}
    held = {name: (masters or {}).get(p, p) for name, p in trained.items()}
    return WeightSample(
        held,
        {name: _strided(tensor).clone() for name, tensor in held.items()},
        {name: _strided(p.grad) != 0 for name, p in trained.items() if p.grad is not None},
    )


@torch.no_grad()
def sample_without_gradients(module: nn.Module) -> WeightSample:
    """Note elements of each trainable tensor where an engine holds gradients and masters itself."""
    held: dict[str, Tensor] = {n: p for n, p in module.named_parameters() if p.requires_grad}
    values = {name: _strided(tensor).clone() for name, tensor in held.items()}
    moving = {name: torch.ones_like(value, dtype=torch.bool) for name, value in values.items()}
    return WeightSample(held, values, moving, least=0.0)


def _strided(tensor: Tensor) -> Tensor:
    flat = tensor.detach().flatten()
    return flat[:: max(1, flat.numel() // SAMPLED)]


@torch.no_grad()
def change_findings(before: WeightSample) -> list[Finding]:
    """Check that a step really changed the weights whose gradient is not 0."""
    moved, expected, still = 0, 0, []
    for name, tensor in before.held.items():
        should = before.moving[name]
        changed = (_strided(tensor) != before.values[name]) & should
        moved += int(changed.sum())
        expected += int(should.sum())
        if bool(should.any()) and not bool(changed.any()):
            still.append(name)
    if not expected:
        return [skipped("weights/changed_share", "no weight had a gradient")]
    share = moved / expected
    return [
        finding(
            "weights/changed_share",
            share,
            f"> {before.least:g}",
            share > before.least,
            f"{1 - share:.0%} of the weights do not change in a step although they have gradients "
            f"({len(still)} tensors not at all, the first {_first(still)}): the update is lost to "
            "rounding (half-precision weights, a rate or a clip norm far too small), the step was "
            "skipped, or the optimiser holds other tensors",
            "keep weights or their masters in float32 (hardware.precision=bf16-mixed); raise "
            "trainer.lr or trainer.grad_clip; build the optimiser from the policy's own parameters",
            Verdict.warn if moved else Verdict.fail,
        )
    ]


# -- reference -----------------------------------------------------------------------------------


def reference_findings(policy: nn.Module, reference: Reference) -> list[Finding]:
    """Check that the reference is a copy of its own that does not train.

    Args:
        policy: what trains.
        reference: what the KL term compares with; one that is no module of its own (the policy with
            its adapters as they were) shares weights on purpose.
    """
    if not isinstance(reference, nn.Module):
        return [skipped("reference/aliased", ADAPTERS)]
    training = {_storage(p): name for name, p in policy.named_parameters() if p.requires_grad}
    shared = [training[_storage(p)] for p in reference.parameters() if _storage(p) in training]
    learning = [name for name, p in reference.named_parameters() if p.requires_grad]
    return [
        equals(
            "reference/aliased",
            len(shared),
            0,
            f"the reference is aliased: it shares {len(shared)} trained tensors with the policy, "
            f"the first {_first(shared)}, so KL stays 0 whatever the policy does",
            "copy.deepcopy the model for the reference (policy.frozen_copy())",
        ),
        equals(
            "reference/trainable",
            len(learning),
            0,
            f"{len(learning)} parameters of the reference require gradients",
            "reference.requires_grad_(False)",
        ),
    ]


@torch.no_grad()
def stays_findings(policy: nn.Module, reference: Reference) -> list[Finding]:
    """Check, after updates that had a signal, that the reference stayed where it was.

    Args:
        policy: what trained.
        reference: as in `reference_findings`.
    """
    if not isinstance(reference, nn.Module):
        return [skipped("reference/stays", ADAPTERS)]
    kept = dict(reference.named_parameters())
    pairs = [
        (p, kept[name])
        for name, p in policy.named_parameters()
        if p.requires_grad and name in kept and p.shape == kept[name].shape
    ]
    away = sum(int((_strided(p) != _strided(other)).sum()) for p, other in pairs)
    return [
        finding(
            "reference/stays",
            float(away),
            "> 0 weights apart",
            away > 0 or not pairs,
            "the reference follows the policy: after updates both have the same weights, so the KL "
            "term does nothing (or the updates changed nothing, see weights/changed_share)",
            "copy the weights once, at the start of the phase; never hand the policy itself out",
        )
    ]


def _storage(parameter: Tensor) -> tuple[int, torch.device]:
    return parameter.untyped_storage().data_ptr(), parameter.device
