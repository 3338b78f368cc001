"""Write the report of a comparison: `report.html` and `report.png`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from core_rl.files import write_text
from core_rl.results.html import render
from core_rl.results.plotting import (
    AFTER,
    BEFORE,
    RIGHT,
    new_figure,
    row_of_axes,
    save_png,
    style,
    svg_uri,
)
from core_rl.results.stats import is_mean
from lever.results.table import FROM, TO

MAIN = "grpo"
# Bounds: they know the answer, all scores, or the facts behind a question.
BOUNDS = ("oracle", "greedy_infoscore", "knows_latents")
WANTED_GAP = 0.7  # share of the way from the nearest questions to the oracle


def write_report(
    folder: Path, name: str, metrics: Mapping[str, float], trained: Sequence[str], table: str
) -> None:
    """Write `report.html` and `report.png` from the output of `lever.results.table.compare`.

    `name` is that of selector and data, `trained` has the names of the trained methods.
    """
    with style():
        figure = overview(metrics, trained)
        source = svg_uri(figure)
        save_png(figure, folder / "report.png")
    page = render(
        "lever",
        "lever.html.j2",
        name=name,
        generated=f"score/{TO}" in metrics,
        findings=findings(metrics),
        images=[("accuracy of every method, and differences", source)],
        table=table,
    )
    write_text(folder / "report.html", page)


def findings(metrics: Mapping[str, float]) -> list[str]:
    """Summarise the metrics in sentences."""
    worlds = int(metrics["worlds"])
    said = [
        f"{worlds} data set{'s' if worlds > 1 else ''}: GRPO {metrics[f'score/{MAIN}']:.3f}, "
        f"nearest questions {metrics[f'score/{FROM}']:.3f}."
    ]
    gap = metrics.get(f"gap_closed/{MAIN}")
    if gap is not None:
        short = "" if gap >= WANTED_GAP else f", short of the {WANTED_GAP:.0%} wanted"
        said.append(
            f"GRPO closes {gap:.0%} of the way from the nearest questions to the best of all "
            f"ordered sets{short}."
        )
    if f"expected/{MAIN}" in metrics:
        said.append(f"A set drawn from it earns {metrics[f'expected/{MAIN}']:.3f} on average.")
    for other in ("sft", "rce", "shuffled"):
        low = metrics.get(f"diff/{MAIN}_vs_{other}_low")
        if low is not None:
            mean = metrics[f"diff/{MAIN}_vs_{other}"]
            verdict = "above" if low > 0 else "not shown to be above"
            said.append(f"It is {verdict} {other}: {mean:+.3f}, the interval begins at {low:+.3f}.")
    return said


def overview(metrics: Mapping[str, float], trained: Sequence[str]) -> Figure:
    """Draw the accuracy of every method, and the differences between trained methods."""
    names = sorted(
        (key.removeprefix("score/") for key in metrics if _is_mean(key, "score/")),
        key=lambda one: metrics[f"score/{one}"],
    )
    # Differences to simple rules are much larger and would hide the others.
    pairs = [
        key
        for key in metrics
        if _is_mean(key, "diff/") and set(key.removeprefix("diff/").split("_vs_")) <= {*trained}
    ]
    figure = new_figure(11.0, 1.0 + 0.24 * max(len(names), len(pairs)))
    left, right = row_of_axes(figure, 2)
    _draw_scores(left, metrics, names, trained)
    _draw_differences(right, metrics, pairs)
    return figure


def _draw_scores(
    ax: Axes, metrics: Mapping[str, float], names: Sequence[str], trained: Sequence[str]
) -> None:
    for place, name in enumerate(names):
        colour = RIGHT if name in BOUNDS else AFTER if name in trained else BEFORE
        _interval(ax, place, metrics, f"score/{name}", colour)
        drawn = metrics.get(f"expected/{name}")
        if drawn is not None:
            ax.plot(drawn, place, "|", color=colour, ms=9, mew=2)
    ax.set_yticks(np.arange(len(names)), names, fontsize=8)
    ax.set_xlabel("accuracy on held-out queries, 95 % intervals; | of a drawn set")
    ax.set_title("blue: trained, grey: rules, green: knows what no selector can")


def _draw_differences(ax: Axes, metrics: Mapping[str, float], pairs: Sequence[str]) -> None:
    ax.axvline(0, color="#333333", lw=1)
    for place, key in enumerate(reversed(pairs)):
        _interval(ax, place, metrics, key, AFTER)
    names = [key.removeprefix("diff/").replace("_vs_", " - ") for key in reversed(pairs)]
    ax.set_yticks(np.arange(len(names)), names, fontsize=8)
    ax.set_xlabel("difference on the same queries, 95 % intervals")


def _interval(ax: Axes, place: int, metrics: Mapping[str, float], key: str, colour: str) -> None:
    low, high = metrics[f"{key}_low"], metrics[f"{key}_high"]
    ax.plot([low, high], [place, place], color=colour, lw=2)
    ax.plot(metrics[key], place, "o", color=colour, ms=5)


def _is_mean(key: str, prefix: str) -> bool:
    return key.startswith(prefix) and is_mean(key)
