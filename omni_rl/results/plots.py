"""Figures of a report: before and after, gains over baselines, rewards by step, clips.

Each `draw_*` draws on given axes, so that the page and the picture can both use it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from core_rl.results.plotting import AFTER, BEFORE, RIGHT, WRONG, new_figure, row_of_axes
from core_rl.results.stats import Interval
from omni_rl.results.clip_views import ClipView

Curves = Mapping[str, Sequence[pd.Series]]  # reward -> its mean by step, one series a seed


@dataclass(frozen=True)
class Pair:
    """A metric before and after training."""

    name: str
    before: Interval
    after: Interval


@dataclass(frozen=True)
class Gain:
    """Difference of the trained policy to another policy.

    Attributes:
        name: of the other policy.
        level: its accuracy.
        gain: accuracy of the trained policy minus that accuracy, paired.
    """

    name: str
    level: float
    gain: Interval


def draw_bars(ax: Axes, pairs: Sequence[Pair]) -> None:
    """Draw each metric before and after, with 95 % intervals."""
    places = np.arange(len(pairs), dtype=float)
    for shift, colour, name in ((-0.2, BEFORE, "before"), (0.2, AFTER, "after")):
        values = [pair.before if name == "before" else pair.after for pair in pairs]
        means = [value.mean for value in values]
        # A bootstrap interval of a skewed mean may lie beside it by rounding.
        errors = [
            [max(0.0, value.mean - value.low) for value in values],
            [max(0.0, value.high - value.mean) for value in values],
        ]
        ax.bar(places + shift, means, 0.38, color=colour, label=name)
        ax.errorbar(places + shift, means, errors, fmt="none", ecolor="#333333", capsize=2, lw=1)
        for place, value in zip(places, values, strict=True):
            top = max(value.mean, value.high)
            ax.annotate(
                f"{value.mean:.2f}", (place + shift, top), (0, 3), textcoords="offset points",
                ha="center", fontsize=7.5,
            )  # fmt: skip
    ax.set_xticks(places, [pair.name.replace("_", "\n") for pair in pairs])
    ax.set_ylim(0, 1.18)
    ax.set_yticks(np.arange(0, 1.01, 0.25))
    ax.set_title("held-out records, before and after (95 % intervals)")
    ax.legend(loc="upper right", ncols=2, borderaxespad=0)


def draw_gains(ax: Axes, gains: Sequence[Gain]) -> None:
    """Draw the trained policy's accuracy minus that of start, baselines and controls."""
    places = np.arange(len(gains))[::-1]
    ax.axvline(0, color="#333333", lw=1)
    for place, item in zip(places, gains, strict=True):
        ax.plot([item.gain.low, item.gain.high], [place, place], color=AFTER, lw=2)
        ax.plot(item.gain.mean, place, "o", color=AFTER, ms=6)
        ax.annotate(
            f"{item.gain.mean:+.2f}", (item.gain.mean, place), (0, 6),
            textcoords="offset points", ha="center", fontsize=8,
        )  # fmt: skip
    ax.set_yticks(places, [f"{item.name} ({item.level:.2f})" for item in gains])
    ax.set_ylim(-0.6, len(gains) - 0.3)
    ax.margins(x=0.12)
    ax.set_xlabel("accuracy of the trained policy minus that of ... (its accuracy)")
    ax.set_title("gain over start, baselines and controls (95 % intervals)")


def draw_curves(axes: Sequence[Axes], curves: Curves) -> None:
    """Draw each reward by step: a thin line for each seed, a thick one for their mean."""
    for ax, (name, seeds) in zip(axes, curves.items(), strict=True):
        for series in seeds:
            ax.plot(series.index, series.to_numpy(), color=AFTER, lw=0.9, alpha=0.6)
        if len(seeds) > 1:
            mean = pd.concat(list(seeds), axis=1).mean(axis=1)
            ax.plot(mean.index, mean.to_numpy(), color="#0b2f52", lw=1.8)
        values = pd.concat(list(seeds))
        if values.between(0, 1).all():
            ax.set_ylim(-0.03, 1.03)
        ax.set_title(name)
        ax.set_xlabel("step")


def draw_clip(picture: Axes, words: Axes, clip: ClipView, width: int = 78) -> None:
    """Draw a clip's frames below the question, and the completions below them."""
    for ax in (picture, words):
        ax.set_axis_off()
    assert clip.strip_HWC is not None, "only clips that can be shown are drawn"
    picture.imshow(clip.strip_HWC)
    question = textwrap.fill(f"{clip.question} (right: {clip.answer})", width, max_lines=3)
    picture.set_title(question, fontsize=8.5)
    down = 0.0
    for told in clip.told:
        said = f"{told.when}: {told.context} -> {told.answer} ({told.verdict})"
        text = textwrap.fill(said, width, max_lines=4)
        colour = {"right": RIGHT, "wrong": WRONG}.get(told.verdict, "#333333")
        words.annotate(
            text, (0, 1), (0, -down), xycoords="axes fraction", textcoords="offset points",
            va="top", fontsize=7.5, color=colour, in_layout=False,
        )  # fmt: skip
        down += 10.5 * (text.count("\n") + 1) + 4


def bars_figure(pairs: Sequence[Pair]) -> Figure:
    """Make the figure of `draw_bars`."""
    figure = new_figure(8.0, 3.2)
    draw_bars(figure.subplots(), pairs)
    return figure


def gains_figure(gains: Sequence[Gain]) -> Figure:
    """Make the figure of `draw_gains`."""
    figure = new_figure(8.0, 1.2 + 0.45 * len(gains))
    draw_gains(figure.subplots(), gains)
    return figure


def curves_figure(curves: Curves) -> Figure:
    """Make the figure of `draw_curves`."""
    figure = new_figure(2.4 * len(curves) + 0.4, 2.3)
    draw_curves(row_of_axes(figure, len(curves)), curves)
    return figure


def overview(
    pairs: Sequence[Pair], gains: Sequence[Gain], curves: Curves, clips: Sequence[ClipView]
) -> Figure:
    """Draw all figures in one picture; those without data are left out."""
    heights = [3.3] + [2.2] * bool(curves) + [2.3] * bool(clips)
    figure = new_figure(12.5, sum(heights))
    rows = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    left, right = rows[0].subplots(1, 2, width_ratios=[1.35, 1])
    draw_bars(left, pairs)
    draw_gains(right, gains)
    if curves:
        draw_curves(row_of_axes(rows[1], len(curves)), curves)
        rows[1].suptitle("mean reward of the candidates by training step", x=0.01, ha="left")
    if clips:
        grid = rows[-1].subplots(2, len(clips), squeeze=False, height_ratios=[1.2, 1])
        for picture, words, clip in zip(*grid, clips, strict=True):
            draw_clip(picture, words, clip)
    return figure
