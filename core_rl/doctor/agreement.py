"""Do drawing, training and reference score the same candidates alike?  For any policy of the loop.

Before the first update all three have the same weights, so every difference is a fault.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from core_rl.doctor.findings import Finding, finding, skipped
from core_rl.types import Actions, Policy, Query, Reference

AGREES = 1e-3  # nats, largest gap; float32 log-probs of the same tokens agree to 1e-6 or so
# nats, mean gap: among thousands of tokens in bfloat16 a few are always far off.
HALF_AGREES = 0.05
ENGINE_AGREES = 0.1  # nats, mean gap to another engine's kernels


def largest_gap(one_BGT: Tensor, other_BGT: Tensor, mask_BGT: Tensor) -> float:
    """Largest |difference| on real steps, in nats; infinite where either is not finite."""
    gap_BGT = (one_BGT.float() - other_BGT.to(one_BGT.device).float()).abs()
    gap_BGT = torch.where(gap_BGT.isfinite(), gap_BGT, math.inf)
    return float(torch.where(mask_BGT, gap_BGT, 0.0).max())


def mean_gap(one_BGT: Tensor, other_BGT: Tensor, mask_BGT: Tensor) -> float:
    """Mean |difference| on real steps, in nats; infinite where either is not finite."""
    gap_BGT = (one_BGT.float() - other_BGT.to(one_BGT.device).float()).abs()
    gap_BGT = torch.where(gap_BGT.isfinite(), gap_BGT, math.inf)
    return float(torch.where(mask_BGT, gap_BGT, 0.0).sum() / mask_BGT.sum().clamp(min=1))


def is_half(policy: Policy) -> bool:
    """Tell whether a policy computes in bfloat16 or float16, autocast included."""
    first = next(iter(policy.parameters()), None)
    if first is None:
        return False
    halved = first.dtype in (torch.bfloat16, torch.float16)
    return halved or torch.is_autocast_enabled(first.device.type)


def disagreement(
    policy: Policy, one_BGT: Tensor, other_BGT: Tensor, mask_BGT: Tensor
) -> tuple[float, float]:
    """Gap of two scorings by one policy, and the largest that its precision explains.

    Returns:
        In nats: the largest gap of a step in float32, the mean in half precision.
    """
    if is_half(policy):
        return mean_gap(one_BGT, other_BGT, mask_BGT), HALF_AGREES
    return largest_gap(one_BGT, other_BGT, mask_BGT), AGREES


@torch.no_grad()
def kl_findings(
    policy: Policy,
    reference: Reference,
    queries: Sequence[Query],
    actions: Actions,
    temperature: float,
) -> list[Finding]:
    """Check that policy and reference agree at the start of a phase."""
    own, other = (
        one.log_probs(one.encode(queries), actions, temperature).logp_BGT
        for one in (policy, reference)
    )
    gap, limit = disagreement(policy, own, other, actions.mask_BGT)
    return [
        finding(
            "reference/gap_at_start",
            gap,
            f"<= {limit:g}",
            gap <= limit,
            "KL to the reference is not 0 at the start of the phase: the reference has other "
            "weights, another mode (dropout) or other inputs",
            "take the reference from the policy at the start of the phase (policy.frozen_copy()), "
            "in eval mode, with the same prompt builder",
        )
    ]


@torch.no_grad()
def ratio_findings(
    policy: Policy, queries: Sequence[Query], actions: Actions, temperature: float
) -> list[Finding]:
    """Check what the importance ratio sees before the first update: it must be 1.

    Args:
        policy: with the weights that the candidates were drawn at.
        queries: B of them.
        actions: fresh from the sampler.
        temperature: at which they were drawn.
    """
    own = policy.log_probs(policy.encode(queries), actions, temperature).logp_BGT
    if actions.logp_BGT is None:
        return [skipped("signal/ratio_gap", "a mechanism without log-probs drew these")]
    gap, limit = disagreement(policy, own, actions.logp_BGT, actions.mask_BGT)
    found = [
        finding(
            "signal/ratio_gap",
            gap,
            f"<= {limit:g}",
            gap <= limit,
            "sampler and training log-probs disagree before the update: stale rollout weights, "
            "another temperature, other masked options, dropout, or another prompt",
            "draw with the present weights, and score logits / temperature under the same mask of "
            "options in both",
        )
    ]
    if actions.engine_logp_BGT is not None:
        found.append(_engine_finding(own, actions))
    return found


def _engine_finding(logp_BGT: Tensor, actions: Actions) -> Finding:
    """Another engine's log-probs may differ by its kernels and precision, and by no more."""
    assert actions.engine_logp_BGT is not None
    gap = mean_gap(logp_BGT, actions.engine_logp_BGT, actions.mask_BGT)
    return finding(
        "signal/engine_gap",
        gap,
        f"<= {ENGINE_AGREES:g}",
        gap <= ENGINE_AGREES,
        "the engine that draws has other weights (stale rollout weights), another prompt or chat "
        "template, or returns log-probs of another distribution",
        "send the weights before each rollout and let the engine return processed log-probs",
    )


@torch.no_grad()
def consistency_findings(
    policy: Policy, queries: Sequence[Query], actions: Actions, temperature: float
) -> list[Finding]:
    """Check that scoring is repeatable, and the same in a batch as alone."""
    together, again = (
        policy.log_probs(policy.encode(queries), actions, temperature).logp_BGT for _ in range(2)
    )
    repeat, limit = disagreement(policy, together, again, actions.mask_BGT)
    found = [
        finding(
            "signal/repeatable",
            repeat,
            f"<= {limit:g}",
            repeat <= limit,
            "two scorings of the same candidates differ: dropout is on",
            "set dropout to 0, or score in eval mode",
        )
    ]
    if len(queries) < 2:
        return [*found, skipped("signal/alone_gap", "needs two queries")]
    alone = torch.cat(
        [
            policy.log_probs(
                policy.encode([query]), rows_of(actions, slice(b, b + 1)), temperature
            ).logp_BGT
            for b, query in enumerate(queries)
        ]
    )
    gap, limit = disagreement(policy, together, alone, actions.mask_BGT)
    found.append(
        finding(
            "signal/alone_gap",
            gap,
            f"<= {limit:g}",
            gap <= limit,
            "a query's candidates score otherwise in the batch than alone: the first query is "
            "reused for the batch, padding is attended to, or rows are mixed up",
            "encode each query by itself and mask padding",
        )
    )
    return found


@torch.no_grad()
def reuse_findings(
    policy: Policy,
    queries: Sequence[Query],
    actions: Actions,
    first_logp_BGT: Tensor,
    temperature: float,
) -> list[Finding]:
    """Check a rollout that is learned from once more, after an update that had a signal.

    Args:
        policy: after the update.
        queries: of the rollout.
        actions: its candidates, with the old log-probs as they are now.
        first_logp_BGT: the old log-probs when the rollout was first seen.
        temperature: at which candidates were drawn.
    """
    assert actions.logp_BGT is not None
    now = policy.log_probs(policy.encode(queries), actions, temperature).logp_BGT
    changed = largest_gap(actions.logp_BGT, first_logp_BGT, actions.mask_BGT)
    moved = largest_gap(now, actions.logp_BGT, actions.mask_BGT)
    cause = (
        "old log-probs were recomputed after the update: the ratio is 1 by construction, so "
        "clipping never acts and reuse is uncorrected"
    )
    cure = "keep the log-probs of the sampler with the rollout; never take logp.detach() again"
    return [
        finding("signal/old_logp_changed", changed, "= 0", changed == 0, cause, cure),
        finding("signal/reuse_gap", moved, "> 0", moved > 0, cause, cure),
    ]


def rows_of(actions: Actions, queries: slice, candidates: slice = slice(None)) -> Actions:
    """Keep some candidates of some queries; texts and spans are left out."""

    def cut(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[queries, candidates]

    return Actions(
        actions.ids_BGT[queries, candidates],
        actions.mask_BGT[queries, candidates],
        cut(actions.logp_BGT),
        cut(actions.truncated_BG),
        engine_logp_BGT=cut(actions.engine_logp_BGT),
    )
