"""Fill the tables of README from what named runs measured, so that they cannot drift.

    python -m benchmarks.readme stage4=RUN lever=RUN sa2va=RUN

RUN is the folder of a run.  A table stands between `<!-- table NAME -->` and `<!-- end of NAME -->`
and holds the figures of that one run; the run's picture goes to docs/images/NAME.png.  A name that
is not given keeps its table.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from core_rl.files import write_text
from omni_rl.results.report import COMPARED, HEADLINE

ROOT = Path(__file__).parents[1]

Metrics = Mapping[str, float | None]

# Rows of the two other pipelines: what is said, and the metric.
LEVER = (
    ("accuracy, GRPO", "score/grpo"),
    ("GRPO above supervision", "diff/grpo_vs_sft"),
    ("GRPO above RCE", "diff/grpo_vs_rce"),
    ("GRPO above shuffled rewards", "diff/grpo_vs_shuffled"),
    ("GRPO above the nearest picture and question", "diff/grpo_vs_img1_txt1"),
)
SA2VA = (
    ("Dice, best fixed prompt", "dice/fixed"),
    ("Dice, each picture's best prompt", "dice/oracle"),
    ("GRPO above the best fixed prompt", "diff/grpo_vs_fixed"),
    ("PPO above the best fixed prompt", "diff/ppo_tuned_vs_fixed"),
)


def stage4(metrics: Metrics) -> list[str]:
    """Lay out the start against the trained policy, then everything that it is compared with."""
    lines = [
        "| held-out records | before (n) | after (n) | change [95 %] | detectable | by seed |",
        "|---|---|---|---|---|---|",
    ]
    for name in HEADLINE:
        if f"after/{name}" not in metrics:
            continue
        # A start may state nothing that could be judged: no value, of 0 records.
        sides = [
            f"{number(metrics.get(f'{side}/{name}'))} ({metrics.get(f'{side}/{name}_n') or 0:.0f})"
            for side in ("before", "after")
        ]
        compared = f"diff/{name}" in metrics
        lines.append(
            row(name, *sides, *(difference(metrics, f"diff/{name}") if compared else "???"))
        )
    lines += [
        "",
        "| accuracy of | value | trained policy above it [95 %] | detectable | by seed |",
        "|---|---|---|---|---|",
    ]
    for key in metrics:
        found = re.fullmatch(r"after_vs_(\w+)/accuracy", key)
        if found:
            name = found[1]
            value = number(metrics[f"{name}/accuracy"])
            lines.append(row(COMPARED.get(name, name), value, *difference(metrics, key)))
    return lines


def figures(metrics: Metrics, rows: Sequence[tuple[str, str]]) -> list[str]:
    """Lay out some figures of a run; those that it does not have are left out."""
    lines = ["| figure | value [95 %] | detectable | by seed |", "|---|---|---|---|"]
    for said, key in rows:
        if key in metrics:
            lines.append(row(said, *difference(metrics, key, signed=key.startswith("diff/"))))
    return lines


def difference(metrics: Metrics, key: str, signed: bool = True) -> tuple[str, str, str]:
    """Format a figure with its interval, the detectable difference and the values by seed."""
    value = number(metrics[key], signed)
    if f"{key}_low" in metrics:
        low, high = (number(metrics[f"{key}{end}"], signed) for end in ("_low", "_high"))
        value += f" [{low}, {high}]"
    least = number(metrics[f"{key}_detectable"]) if f"{key}_detectable" in metrics else ""
    seeds = [name for name in metrics if re.fullmatch(re.escape(key) + r"/seed\d+", name)]
    each = sorted(seeds, key=lambda name: int(name.rpartition("seed")[2]))
    return value, least, " ".join(number(metrics[name], signed) for name in each)


def number(value: float | None, signed: bool = False) -> str:
    """Format with three decimals and no leading zero; a value that is not there is `?`."""
    if value is None:  # not finite: one item tells nothing of others
        return "?"
    text = f"{value:+.3f}" if signed else f"{value:.3f}"
    return re.sub(r"^([+-]?)0\.", r"\1.", text)


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def provenance(folder: Path, command: str) -> str:
    """Say which run a table is of."""
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    minutes = run["cpu_seconds"] / 60
    machine = f"{run['hardware']['cores']} cores, {minutes:.0f} minutes of processor time"
    return f"`{command}`, revision {run['revision']}, {run['started'][:10]}, {machine}."


TABLES = {
    "stage4": (stage4, "make full"),
    "lever": (lambda metrics: figures(metrics, LEVER), "make full EXP=lever"),
    "sa2va": (lambda metrics: figures(metrics, SA2VA), "make full EXP=sa2va"),
}


def fill(text: str, name: str, folder: Path) -> str:
    """Replace the table of a name by the figures of a run.

    Raises:
        ValueError: the text has no such table.
    """
    begin, end = f"<!-- table {name} -->", f"<!-- end of {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"README: expected {begin} and {end}, once each")
    table, command = TABLES[name]
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    block = "\n".join([*table(metrics), "", provenance(folder, command)])
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{block}\n{end}{rest.partition(end)[2]}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN", help=f"names: {', '.join(TABLES)}")
    parser.add_argument("--root", type=Path, default=ROOT, help="where README.md and docs/ are")
    asked = parser.parse_args(arguments)
    readme = asked.root / "README.md"
    text = readme.read_text(encoding="utf-8")
    pictures: list[tuple[Path, Path]] = []
    for one in asked.runs:
        name, _, path = one.partition("=")
        folder = Path(path)
        if name not in TABLES or not path:
            parser.error(f"{one}: expected NAME=RUN with a name among {', '.join(TABLES)}")
        for file in ("metrics.json", "run.json", "report.png"):
            if not (folder / file).is_file():
                parser.error(f"{one}: no {file} there; name the folder of a finished run")
        text = fill(text, name, folder)
        pictures.append((folder / "report.png", asked.root / "docs" / "images" / f"{name}.png"))
    write_text(readme, text)
    for source, target in pictures:
        shutil.copyfile(source, target)
    sys.stdout.write(f"{readme}: {', '.join(asked.runs)}\n")


if __name__ == "__main__":
    main()
