"""Do drawing, training and reference score the same candidates alike?  For any policy of the loop.

Before the first update all three have the same weights, so every difference is a fault.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core_rl.doctor.findings import Finding, at_most, equals, finding, skipped
from core_rl.types import Actions, Policy, Query, Reference

ENGINE_AGREES = 0.1  # nats, mean gap to another engine's kernels


@dataclass(frozen=True)
class Tolerance:
    """Largest gaps that a healthy run shows, in nats.

    Attributes:
        max_abs: of one token.
        mean_abs: over all tokens.
    """

    max_abs: float
    mean_abs: float


FULL = Tolerance(max_abs=1e-3, mean_abs=1e-3)  # float32; healthy: 1e-6 to 1e-5
HALF = Tolerance(max_abs=0.5, mean_abs=0.05)  # half precision; small models: about 1e-2
# Sharper models round further apart: real weights of 135 million parameters .03 to .06 on average.
# So the limit follows what was measured on the spot (`Case.rounding`, twice the gap of healthy
# models), and is at most `COARSEST`.
TIMES_ROUNDING = 1.5
COARSEST = Tolerance(max_abs=3.0, mean_abs=0.3)


@dataclass(frozen=True)
class Gap:
    """|difference| of two sets of log-probabilities over real tokens, in nats.

    Attributes:
        first: largest, at the first token of a completion.
        rest: largest, at the tokens after it; 0 where there are none.
        mean: over all tokens.
    """

    first: float
    rest: float
    mean: float

    @property
    def max(self) -> float:
        return max(self.first, self.rest)

    def within(self, tolerance: Tolerance) -> bool:
        """Tell whether both limits hold; a gap that is not a number is never within."""
        return self.max <= tolerance.max_abs and self.mean <= tolerance.mean_abs


def gap_between(one: Tensor, other: Tensor, mask: Tensor) -> Gap:
    """Compare two scorings [..., T] of the same tokens; not finite in either counts as infinite."""
    gap = (one.float() - other.to(one.device).float()).abs()
    gap = torch.where(gap.isfinite(), gap, math.inf)
    gap = torch.where(mask, gap, 0.0)
    rest = float(gap[..., 1:].max()) if gap.shape[-1] > 1 else 0.0
    mean = float(gap.sum() / mask.sum().clamp(min=1))
    return Gap(float(gap[..., 0].max()), rest, mean)


def is_half(policy: nn.Module) -> bool:
    """Tell whether a policy computes in bfloat16 or float16, autocast included."""
    first = next(policy.parameters(), None)
    if first is None:
        return False
    halved = first.dtype in (torch.bfloat16, torch.float16)
    return halved or torch.is_autocast_enabled(first.device.type)


def tolerance_of(policy: nn.Module, rounding: Gap | None = None) -> Tolerance:
    """Tolerance for the precision that a policy computes in.

    Args:
        policy: its weights and autocast tell the precision.
        rounding: what half precision alone was seen to do; None = what the policy remembers.
    """
    if not is_half(policy):
        return FULL
    if rounding is None:
        mean, largest = getattr(policy, "rounding", (0.0, 0.0))
    else:
        mean, largest = rounding.mean, rounding.max
    return Tolerance(
        min(max(HALF.max_abs, TIMES_ROUNDING * largest), COARSEST.max_abs),
        min(max(HALF.mean_abs, TIMES_ROUNDING * mean), COARSEST.mean_abs),
    )


def disagreement(
    policy: nn.Module, one_BGT: Tensor, other_BGT: Tensor, mask_BGT: Tensor
) -> tuple[float, float]:
    """Gap of two scorings by one policy, and the largest that its precision explains.

    Returns:
        In nats: the largest gap of a step in float32; the mean in half precision, where a few of
        thousands of tokens are always far off.
    """
    gap, tolerance = gap_between(one_BGT, other_BGT, mask_BGT), tolerance_of(policy)
    return (gap.mean, tolerance.mean_abs) if is_half(policy) else (gap.max, tolerance.max_abs)


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
        at_most(
            "reference/gap_at_start",
            gap,
            limit,
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
        at_most(
            "signal/ratio_gap",
            gap,
            limit,
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
    return at_most(
        "signal/engine_gap",
        gap_between(logp_BGT, actions.engine_logp_BGT, actions.mask_BGT).mean,
        ENGINE_AGREES,
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
        at_most(
            "signal/repeatable",
            repeat,
            limit,
            "two scorings of the same candidates differ: dropout is on",
            "set dropout to 0, or score in eval mode",
        )
    ]
    if len(queries) < 2:
        return [*found, skipped("signal/alone_gap", "needs two queries")]
    alone = [
        policy.log_probs(policy.encode([query]), rows_of(actions, slice(b, b + 1)), temperature)
        for b, query in enumerate(queries)
    ]
    alone_BGT = torch.cat([one.logp_BGT for one in alone])
    gap, limit = disagreement(policy, together, alone_BGT, actions.mask_BGT)
    found.append(
        at_most(
            "signal/alone_gap",
            gap,
            limit,
            "a query's candidates score differently in the batch and alone: the first query is "
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
    changed = gap_between(actions.logp_BGT, first_logp_BGT, actions.mask_BGT).max
    moved = gap_between(now, actions.logp_BGT, actions.mask_BGT).max
    cause = (
        "old log-probs were recomputed after the update: the ratio is 1 by construction, so "
        "clipping never acts and reuse is uncorrected"
    )
    cure = "keep the log-probs of the sampler with the rollout; never take logp.detach() again"
    return [
        equals("signal/old_logp_changed", changed, 0, cause, cure),
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
