"""Findings as files: `health.json` for programs, `doctor.txt` and `doctor.html` for people."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from core_rl.doctor.findings import Finding, Verdict, failed, health_metrics, health_table
from core_rl.files import write_json, write_text

log = logging.getLogger(__name__)

_STYLE = """
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 78em; padding: 0 1em; color: #222; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3em .7em; border-bottom: 1px solid #ddd; }
td { white-space: pre-wrap; overflow-wrap: anywhere; }
"""

FILE = "health.json"
Round = Mapping[str, Any]  # `step`, `healthy` and the `findings` of one round of checks


def round_of(step: int, found: Sequence[Finding]) -> Round:
    """Lay out one round of checks as plain values."""
    rows = [{**vars(one), "verdict": one.verdict.value} for one in found]
    return {"step": step, "healthy": not failed(found), "findings": rows}


def write_rounds(folder: Path, rounds: Sequence[Round]) -> None:
    """Write `health.json` of a run."""
    write_json(folder / FILE, {"rounds": list(rounds)})


def read_rounds(folder: Path) -> list[Finding]:
    """Read the findings of every round in `health.json`."""
    rounds = json.loads((folder / FILE).read_text(encoding="utf-8"))["rounds"]
    return [
        Finding(**(row | {"verdict": Verdict(row["verdict"])}))
        for one in rounds
        for row in one["findings"]
    ]


def warn_of(found: Sequence[Finding]) -> None:
    """Log cause and cure of each warning and failure."""
    for one in found:
        if one.verdict in (Verdict.fail, Verdict.warn):
            log.warning("%s %s: %s -> %s", one.verdict.value, one.check, one.cause, one.cure)


def log_round(step: int, found: Sequence[Finding]) -> None:
    """Log a line, each cause with its cure, and the whole table where a check failed."""
    bad = sum(one.verdict in (Verdict.fail, Verdict.warn) for one in found)
    well = sum(one.verdict is Verdict.ok for one in found)
    log.info("doctor, step %d: %d checks well, %d not", step, well, bad)
    if failed(found):
        shown = health_table(found)[["check", "figure", "expected", "verdict"]]
        log.warning("doctor, step %d\n%s", step, shown.to_string(index=False))
    warn_of(found)


def write_findings(folder: Path, found: Sequence[Finding], title: str) -> dict[str, float]:
    """Write and log the table of a check.

    Args:
        folder: of the run.
        found: in any order.
        title: of the page.

    Returns:
        Figures as `health/<check>`, and how many checks were `health/failed`, `health/warned` and
        `health/well`.
    """
    table = health_table(found)
    write_rounds(folder, [round_of(0, found)])
    text = text_of(found)
    write_text(folder / "doctor.txt", text + "\n")
    write_text(folder / "doctor.html", page(title, {"": table}))
    log.info("%s\n%s", title, text)
    counts = {
        f"health/{name}": float(sum(one.verdict is verdict for one in found))
        for name, verdict in (
            ("failed", Verdict.fail),
            ("warned", Verdict.warn),
            ("well", Verdict.ok),
        )
    }
    return health_metrics(found) | counts


def text_of(found: Sequence[Finding]) -> str:
    """The table in narrow columns; below it cause and cure of warnings and failures."""
    narrow = health_table(found)[["check", "figure", "expected", "verdict"]]
    lines = [narrow.to_string(index=False)]
    for one in found:
        if one.verdict in (Verdict.fail, Verdict.warn):
            lines += ["", f"{one.verdict.value} {one.check}"]
            lines += [f"  cause: {one.cause}", f"  cure:  {one.cure}"]
    return "\n".join(lines)


def page(title: str, tables: dict[str, pd.DataFrame]) -> str:
    """One page of tables that needs nothing else; the keys are headings, empty for none."""
    parts = []
    for name, table in tables.items():
        parts += [f"<h2>{escape(name)}</h2>"] if name else []
        parts.append(table.to_html(index=False, border=0))
    return (
        f"<!doctype html>\n<meta charset='utf-8'>\n<title>{escape(title)}</title>\n"
        f"<style>{_STYLE}</style>\n<h1>{escape(title)}</h1>\n" + "\n".join(parts) + "\n"
    )
