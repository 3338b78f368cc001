"""Find the cause of wrong log-probabilities: reproduce known faults and see which one fits.

A gap alone says that something is wrong.  Each hypothesis computes what the log-probabilities would
be under one fault; where that reproduces what was observed, the cause is known and not guessed.  It
runs on a failure only, so it may cost a few forwards.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from core_rl.doctor.agreement import Gap, Tolerance, gap_between
from core_rl.doctor.hf.known_faults import (
    CURE_CACHE,
    CURE_PADDING,
    CURE_POSITIONS,
    EXPLAINED,
    HYPOTHESES,
    Explanation,
    Hypothesis,
)
from core_rl.doctor.hf.parity import Case

log = logging.getLogger(__name__)

PLAUSIBLE_GAP = 0.3  # nats; other weights or inputs move some token by more than this

__all__ = ["Explanation", "Hypothesis", "explain"]


def explain(
    case: Case,
    observed_NT: Tensor,
    tolerance: Tolerance,
    hypotheses: Sequence[Hypothesis] = (),
) -> Explanation:
    """Find the most likely cause of a gap to the plain forward.

    Args:
        case: the completions.
        observed_NT: their log-probabilities as something else saw them.
        tolerance: of the model's precision.
        hypotheses: more of them, tried beside those of this module.

    Returns:
        The hypothesis that leaves the smallest gap; where none fits, a guess from the gap's shape.
    """
    plain_NT = case.score()
    before = gap_between(observed_NT, plain_NT, case.mask_NT)
    if bool((plain_NT.isnan() & case.mask_NT).any()):
        cause = (
            "the plain forward itself gives NaN: weights are not finite, or activations overflow"
        )
        return Explanation(cause, "compute in bf16 or fp32 instead of fp16", before)
    if not bool(torch.where(case.mask_NT, observed_NT, 0.0).isfinite().all()):
        return Explanation(
            "log-probs of drawn tokens are NaN or infinite: weights are not finite, or a "
            "suppressed id was drawn",
            "start from weights that are finite; suppress the same ids in drawing and training",
            before,
        )
    found = [
        answer
        for hypothesis in (*HYPOTHESES, *hypotheses)
        if (answer := _tried(hypothesis, case, observed_NT)) is not None
        and answer.left.mean <= max(EXPLAINED * before.mean, 0.1 * tolerance.mean_abs)
    ]
    if found:
        # Of those that leave practically nothing the first, which is the simplest.
        return min(found, key=lambda answer: max(answer.left.mean, 0.1 * tolerance.mean_abs))
    return _by_shape(before, tolerance)


def _tried(hypothesis: Hypothesis, case: Case, observed_NT: Tensor) -> Explanation | None:
    """Try a hypothesis; a model that cannot be fed like that does not have the fault."""
    try:
        return hypothesis(case, observed_NT)
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        log.debug("%s does not apply: %s", hypothesis, error)
        return None


def _by_shape(gap: Gap, tolerance: Tolerance) -> Explanation:
    """Guess the cause from the tokens that show the gap."""
    if gap.first <= tolerance.max_abs < gap.rest and gap.rest > PLAUSIBLE_GAP:
        cause = (
            "the first token is right and later ones are not: the context is lost from the second "
            "token on (a cache that is dropped or overwritten; train mode with checkpointing)"
        )
        return Explanation(cause, CURE_CACHE, gap)
    if gap.max > PLAUSIBLE_GAP:
        cause = (
            "first and later tokens are off: other weights (stale rollout weights) or other inputs "
            "(prompt or media lost, doubled or of another sample)"
        )
        cure = (
            "give the sampler the policy's present weights before each rollout, and hand the very "
            "same inputs, media included, to drawing and training"
        )
        return Explanation(cause, cure, gap)
    cause = (
        "a small gap everywhere: positions, padding side, attention mask, lower precision or "
        "slightly stale weights"
    )
    return Explanation(cause, f"{CURE_PADDING}; {CURE_POSITIONS}; sync rollout weights", gap)
