"""Draw what a step costs as the group and the clip grow, from the rows of `benchmarks.speed`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator, ScalarFormatter

from core_rl.results.plotting import AFTER, BEFORE, new_figure, row_of_axes, save_png, style

# As `benchmarks.speed` names its rows; sound apart from the frames.
_CASE = re.compile(r"omni_g(?P<group>\d+)_(?P<seconds>[\d.]+)s_apart")
GROUP, SECONDS = 8, 8.0  # what stays as it is while the other grows


def draw_growth(rows: Sequence[dict[str, Any]], path: Path) -> bool:
    """Write the picture; False where the rows do not hold three points of each curve.

    Args:
        rows: of `outputs/bench/speed.json`.
        path: of the PNG.
    """
    cases = [(match, row) for row in rows if (match := _CASE.fullmatch(row["bench"]))]
    groups = sorted(
        (float(match["group"]), row) for match, row in cases if float(match["seconds"]) == SECONDS
    )
    clips = sorted(
        (float(match["seconds"]), row) for match, row in cases if int(match["group"]) == GROUP
    )
    if min(len(groups), len(clips)) < 3:
        return False
    with style():
        figure = new_figure(7.5, 3.2)
        left, right = row_of_axes(figure, 2)
        _curves(left, groups, f"candidates of a question, clip of {SECONDS:g} s")
        _curves(right, clips, f"seconds of the clip, {GROUP} candidates")
        left.set_ylabel("processor seconds a step")
        left.legend()
        path.parent.mkdir(parents=True, exist_ok=True)
        save_png(figure, path)
    return True


def _curves(axes: Axes, points: Sequence[tuple[float, dict[str, Any]]], title: str) -> None:
    along = [x for x, _ in points]
    axes.plot(along, [row["theirs_cpu_s"] for _, row in points], "o-", color=BEFORE, label="copies")
    axes.plot(along, [row["ours_cpu_s"] for _, row in points], "o-", color=AFTER, label="shared")
    axes.set_xscale("log", base=2)
    axes.set_xticks(along)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=0)
    axes.set_title(title)
