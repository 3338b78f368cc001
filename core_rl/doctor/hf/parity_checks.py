"""Decoding and the training forward against the plain one, as findings with a cause."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from core_rl.doctor.agreement import (
    COARSEST,
    TIMES_ROUNDING,
    Gap,
    Tolerance,
    gap_between,
    is_half,
    tolerance_of,
)
from core_rl.doctor.findings import Finding, Verdict, at_most, finding, skipped
from core_rl.doctor.hf.explain import Hypothesis, explain
from core_rl.doctor.hf.known_faults import CURE_CACHE
from core_rl.doctor.hf.parity import Case, Drawn, Scored


def parity_findings(
    case: Case,
    drawn_NT: Tensor,
    scored: Scored | None,
    hypotheses: Sequence[Hypothesis] = (),
) -> list[Finding]:
    """Compare decoding and the training forward with the plain one, and with each other.

    Args:
        case: the completions.
        drawn_NT: log-probs as decoding saw them.
        scored: by the training forward; None where there is none to ask.
        hypotheses: more causes to try on a failure.

    Returns:
        `parity/decoding_*`, `parity/training_*`, `parity/ratio_*` (what the
        importance ratio sees before the first update), `parity/repeatable`, and in half precision
        `parity/rounding`, by which the limits are set.
    """
    found: list[Finding] = []
    tolerance = tolerance_of(case.model)
    if is_half(case.model):
        tolerance = tolerance_of(case.model, case.rounding)
        found.append(_rounding_finding(case.rounding))
    found += _against_plain("decoding", case, drawn_NT, tolerance, hypotheses)
    if scored is None:
        return [*found, skipped("parity/training_max", "no scoring function was given")]
    found += _against_plain("training", case, scored.logp_NT, tolerance, hypotheses)
    ratio = gap_between(scored.logp_NT, drawn_NT, case.mask_NT)
    repeat = gap_between(scored.logp_NT, scored.again_NT, case.mask_NT)
    limit = f"<= {tolerance.max_abs:g}"
    return [
        *found,
        finding(
            "parity/ratio_max",
            ratio.max,
            limit,
            ratio.within(tolerance),
            "the importance ratio is not 1 before the first update: drawing and training score "
            "the same tokens differently",
            "see parity/decoding_max and parity/training_max for the side that is off",
        ),
        finding(
            "parity/repeatable",
            repeat.max,
            limit,
            repeat.within(tolerance),
            "two training forwards of the same tokens differ: dropout is on, or the forward draws "
            "random numbers",
            "set every dropout rate to 0 (core_rl.hf.loading.switch_dropout_off), or score in eval "
            "mode",
        ),
    ]


def _rounding_finding(rounding: Gap) -> Finding:
    return at_most(
        "parity/rounding",
        rounding.mean,
        COARSEST.mean_abs / TIMES_ROUNDING,
        "half precision alone moves log-probs by so much that faults cannot be told from it",
        "train in float32, or with hardware.precision=bf16-mixed",
        Verdict.warn,
    )


def _against_plain(
    side: str,
    case: Case,
    observed_NT: Tensor,
    tolerance: Tolerance,
    hypotheses: Sequence[Hypothesis],
) -> list[Finding]:
    gap = gap_between(observed_NT, case.score(), case.mask_NT)
    cause = cure = ""
    if not gap.within(tolerance):
        answer = explain(case, observed_NT, tolerance, hypotheses)
        cause, cure = f"{side}: {answer.cause}", answer.cure
    limits = dict.fromkeys(("max", "first", "rest"), tolerance.max_abs)
    limits |= {"mean": tolerance.mean_abs}
    # One line fails and tells why; the others show where the gap lies.
    fails = "max" if gap.max > tolerance.max_abs else "mean"
    found = []
    for name, limit in limits.items():
        said = (cause, cure) if name == fails else (f"see parity/{side}_{fails}", "")
        otherwise = Verdict.fail if name == fails else Verdict.warn
        figure = getattr(gap, name)
        found.append(at_most(f"parity/{side}_{name}", figure, limit, *said, otherwise))
    return found


def cache_finding(drawn: Drawn) -> Finding:
    """The cache must hold the prompt and every new token but the last."""
    if drawn.cache_length is None:
        return skipped("cache/length", "decoding showed no cache")
    steps = int(drawn.mask_NT.any(0).sum())
    expected = drawn.prompt_length + steps - 1
    lost = drawn.cache_length < expected
    # Some loops feed the last token too, or decode on after every row has ended.
    most = drawn.prompt_length + drawn.ids_NT.shape[1]
    return finding(
        "cache/length",
        float(drawn.cache_length),
        f"= {expected} (prompt + new - 1)",
        expected <= drawn.cache_length <= most,
        "lost cache: each new token saw only the token before; generate() of transformers 4.53 to "
        "5.23 does this in train mode with gradient (activation) checkpointing"
        if lost
        else "the cache holds more than prompt and completion: one of an earlier batch was reused",
        CURE_CACHE if lost else "start every batch with a cache of its own",
    )
