"""Decoding and the training forward against the plain one, as findings with a cause."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from core_rl.doctor.findings import Finding, Verdict, finding, skipped
from core_rl.doctor.hf.explain import Hypothesis, explain
from core_rl.doctor.hf.known_faults import CURE_CACHE
from core_rl.doctor.hf.parity import Case, Drawn, Gap, Tolerance, gap_between, tolerance_of


def parity_findings(
    case: Case,
    drawn_NT: Tensor,
    scored_NT: Tensor | None,
    repeat: Gap | None,
    hypotheses: Sequence[Hypothesis] = (),
) -> list[Finding]:
    """Compare decoding and the training forward with the plain one, and with each other.

    Args:
        case: the completions.
        drawn_NT: log-probs as decoding saw them.
        scored_NT: log-probs of the training forward; None where there is none to ask.
        repeat: gap of two such forwards.
        hypotheses: more causes to try on a failure.

    Returns:
        `parity/decoding_*`, `parity/training_*`, `parity/ratio_*` (what the
        importance ratio sees before the first update) and `parity/repeatable`.
    """
    tolerance = tolerance_of(case.model)
    found = _against_plain("decoding", case, drawn_NT, tolerance, hypotheses)
    if scored_NT is None or repeat is None:
        return [*found, skipped("parity/training_max", "no scoring function was given")]
    found += _against_plain("training", case, scored_NT, tolerance, hypotheses)
    ratio = gap_between(scored_NT, drawn_NT, case.mask_NT)
    found.append(
        finding(
            "parity/ratio_max",
            ratio.max,
            f"<= {tolerance.max_abs:g}",
            ratio.within(tolerance),
            "the importance ratio is not 1 before the first update: drawing and training score "
            "the same tokens differently",
            "see parity/decoding_max and parity/training_max for the side that is off",
        )
    )
    found.append(
        finding(
            "parity/repeatable",
            repeat.max,
            f"<= {tolerance.max_abs:g}",
            repeat.within(tolerance),
            "two training forwards of the same tokens differ: dropout is on, or the forward draws "
            "random numbers",
            "set every dropout rate to 0 (core_rl.hf.policy.switch_dropout_off), or score in eval "
            "mode",
        )
    )
    return found


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
    rows = (
        ("max", gap.max, tolerance.max_abs),
        ("mean", gap.mean, tolerance.mean_abs),
        ("first", gap.first, tolerance.max_abs),
        ("rest", gap.rest, tolerance.max_abs),
    )
    # One line fails and tells why; the others show where the gap lies.
    fails = "max" if gap.max > tolerance.max_abs else "mean"
    return [
        finding(f"parity/{side}_{name}", figure, f"<= {limit:g}", figure <= limit, cause, cure)
        if name == fails
        else finding(
            f"parity/{side}_{name}",
            figure,
            f"<= {limit:g}",
            figure <= limit,
            f"see parity/{side}_{fails}",
            otherwise=Verdict.warn,
        )
        for name, figure, limit in rows
    ]


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
        "lost cache: each new token saw only the token before; generate() in train mode with "
        "gradient (activation) checkpointing does this since transformers 4.53"
        if lost
        else "the cache holds more than prompt and completion: one of an earlier batch was reused",
        CURE_CACHE if lost else "start every batch with a cache of its own",
    )
