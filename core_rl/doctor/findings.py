"""Findings of a check: a figure, what was expected, a verdict and, on failure, cause and cure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

import pandas as pd


class Verdict(Enum):
    """Result of a check; `skipped` where it does not apply."""

    ok = "ok"
    warn = "warn"
    fail = "FAIL"
    skipped = "skipped"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table.

    Attributes:
        check: name, `<family>/<what>`, e.g. `parity/max_abs`.
        figure: what was measured; None where nothing could be.
        expected: the threshold in words, e.g. `<= 1e-3`.
        verdict: of the two.
        cause: of a failure or warning, the most likely one.
        cure: the override or edit that ends it.
    """

    check: str
    figure: float | None
    expected: str
    verdict: Verdict
    cause: str = ""
    cure: str = ""


def finding(
    check: str,
    figure: float | None,
    expected: str,
    healthy: bool,
    cause: str = "",
    cure: str = "",
    otherwise: Verdict = Verdict.fail,
) -> Finding:
    """Make one line of the table; cause and cure are shown only where something is wrong."""
    if healthy:
        return Finding(check, figure, expected, Verdict.ok)
    return Finding(check, figure, expected, otherwise, cause, cure)


def at_most(
    check: str,
    figure: float,
    limit: float,
    cause: str = "",
    cure: str = "",
    otherwise: Verdict = Verdict.fail,
) -> Finding:
    """Make the line of a figure that must not exceed a limit."""
    return finding(check, float(figure), f"<= {limit:g}", figure <= limit, cause, cure, otherwise)


def equals(
    check: str,
    figure: float,
    wanted: float,
    cause: str = "",
    cure: str = "",
    otherwise: Verdict = Verdict.fail,
) -> Finding:
    """Make the line of a figure that has one right value."""
    return finding(check, float(figure), f"= {wanted:g}", figure == wanted, cause, cure, otherwise)


def skipped(check: str, why: str) -> Finding:
    """Make the line of a check that does not apply, or has nothing to judge."""
    return Finding(check, None, why, Verdict.skipped)


class UnhealthyError(Exception):
    """A run that failed a check and was told to stop there."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = [one for one in findings if one.verdict is Verdict.fail]
        super().__init__("; ".join(f"{f.check}: {f.cause}; {f.cure}" for f in self.findings))

    def __reduce__(self) -> tuple[type[UnhealthyError], tuple[list[Finding]]]:
        """Survive the way from a worker process, which rebuilds errors from their arguments."""
        return type(self), (self.findings,)


def failed(findings: Iterable[Finding]) -> bool:
    """Tell whether any check failed."""
    return any(one.verdict is Verdict.fail for one in findings)


def health_metrics(findings: Iterable[Finding]) -> dict[str, float]:
    """Figures as `health/<check>`, for the logger and `metrics.json`."""
    return {f"health/{one.check}": one.figure for one in findings if one.figure is not None}


def health_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """Table for people, failures first."""
    order = [Verdict.fail, Verdict.warn, Verdict.ok, Verdict.skipped]
    rows = sorted(findings, key=lambda one: order.index(one.verdict))
    return pd.DataFrame(
        [
            {
                "check": one.check,
                "figure": "" if one.figure is None else f"{one.figure:.4g}",
                "expected": one.expected,
                "verdict": one.verdict.value,
                "cause": one.cause,
                "cure": one.cure,
            }
            for one in rows
        ],
        columns=["check", "figure", "expected", "verdict", "cause", "cure"],
    )
