"""Rehearse every GPU preset on this machine: `python -m benchmarks.rehearsals [--minutes 60]`.

A row is a preset with an objective, full weights or adapters, and a precision; it is run as a user
types it, two steps at the smallest sizes, from the start model to the report.  Prints a table of
exit codes and what the doctor said.  Rows that were run before are taken from
`outputs/bench/rehearsals.json`; `--again` runs them anew.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from core_rl.doctor.findings import Verdict
from core_rl.doctor.report import FILE, read_rounds
from core_rl.files import write_json

FOLDER = Path("outputs/bench/rehearsals")
RESULTS = FOLDER.with_suffix(".json")
PRESETS = {
    "gpu1": ("hardware=gpu1",),
    "gpu4_zero2": ("hardware=gpu4_zero2",),
    "gpu8_zero2": ("hardware=gpu8_zero2",),
    "gpu8_zero3": ("hardware=gpu8_zero3",),
    "ddp": ("hardware=gpu8_zero2", "hardware.strategy=ddp"),
}
OBJECTIVES = {"grpo": (), "rce": ("curriculum=rce",)}
WEIGHTS = {"full": (), "lora": ("model.lora.r=4",)}
PRECISIONS = ("bf16-true", "32-true", "bf16-mixed")
SMALLEST = (
    "+exp=stage4_people_focus",
    "trainer=smoke",
    "trainer.batch_size=2",
    "trainer.accumulation=2",
    "trainer.val_size=2",
    "trainer.test_size=4",
    "rollout=g4",
    "rollout.max_completion=48",
    "data_mix.size=16",
    "model.warm.gate_clips=4",
    "model.recompute=layers",
    "hardware.rehearse=true",
)


@dataclass(frozen=True)
class Row:
    """One rehearsal."""

    preset: str
    objective: str
    weights: str
    precision: str

    @property
    def name(self) -> str:
        return "-".join(asdict(self).values())

    def command(self, output: Path) -> list[str]:
        overrides = (*PRESETS[self.preset], *OBJECTIVES[self.objective], *WEIGHTS[self.weights])
        own = (*overrides, f"hardware.precision={self.precision}", f"paths.output={output}")
        return [sys.executable, "-m", "experiments.run", *SMALLEST, *own]


@dataclass(frozen=True)
class Result:
    """How a rehearsal ended.

    Attributes:
        code: exit code.
        doctor: `quiet`, or the checks that warned or failed.
        seconds: on the clock.
    """

    code: int
    doctor: str
    seconds: float


def rows() -> Iterator[Row]:
    """Every row; the first half has each objective, each kind of weights and each precision."""
    learnt = (("grpo", "full"), ("rce", "lora"), ("grpo", "lora"), ("rce", "full"))
    for (objective, weights), precision, preset in itertools.product(learnt, PRECISIONS, PRESETS):
        yield Row(preset, objective, weights, precision)


def rehearse(row: Row) -> Result:
    """Run one row and read what its doctor found."""
    output = FOLDER / row.name
    began = time.monotonic()
    with (output.parent / f"{row.name}.log").open("w", encoding="utf-8") as log:
        code = subprocess.run(row.command(output), stdout=log, stderr=log, check=False).returncode
    return Result(code, said(output / "latest"), round(time.monotonic() - began, 1))


def said(run: Path) -> str:
    """What the doctor of a run found to be wrong; `quiet` where nothing was."""
    if not (run / FILE).exists():
        return "not asked"
    wrong = [one for one in read_rounds(run) if one.verdict in (Verdict.fail, Verdict.warn)]
    return ", ".join(dict.fromkeys(f"{one.verdict.value} {one.check}" for one in wrong)) or "quiet"


def table(results: dict[str, Result]) -> str:
    """Lay the results out, a row a line; those not run are said to be so."""
    lines = ["| preset | objective | weights | precision | exit | doctor | seconds |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows():
        known = results.get(row.name)
        end = f"{known.code} | {known.doctor} | {known.seconds:.0f}" if known else "not run | |"
        cells = (row.preset, row.objective, row.weights, row.precision, end)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120.0, help="start no row afterwards")
    parser.add_argument("--again", action="store_true", help="run known rows anew")
    asked = parser.parse_args()
    until = time.monotonic() + 60 * asked.minutes
    FOLDER.mkdir(parents=True, exist_ok=True)
    results: dict[str, Result] = {}
    if RESULTS.exists() and not asked.again:
        stored = json.loads(RESULTS.read_text(encoding="utf-8"))
        results = {name: Result(**values) for name, values in stored.items()}
    for row in rows():
        if row.name in results or time.monotonic() > until:
            continue
        results[row.name] = rehearse(row)
        write_json(RESULTS, {name: asdict(result) for name, result in results.items()})
        print(row.name, results[row.name], flush=True)  # noqa: T201
    print(table(results))  # noqa: T201


if __name__ == "__main__":
    main()
