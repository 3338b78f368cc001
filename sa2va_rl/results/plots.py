"""Figures of the comparison: gains over the best fixed prompt, reward hacking, sheet of masks."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from core_rl.results.plotting import AFTER, BEFORE, RIGHT, WRONG, new_figure
from sa2va_rl.results.methods import LEARNED, STOPPED
from sa2va_rl.results.table import name_of
from sa2va_rl.segmenters.mask_cache import Mask

RUNS = {"finetune": "with anchor and stop", "finetune_free": "without"}
CHARACTERS = 34  # in a line of a caption


@dataclass(frozen=True)
class Shown:
    """A mask with its caption.

    Attributes:
        title: of the column.
        prompt: text of the prompt.
        mask_HW: the mask.
        dice: with the true mask.
    """

    title: str
    prompt: str
    mask_HW: Mask
    dice: float


@dataclass(frozen=True)
class SheetRow:
    """One held-out picture with its true mask and its masks under prompts."""

    image_HWC: NDArray[np.uint8]
    truth_HW: Mask
    shown: tuple[Shown, ...]


def draw_gains(ax: Axes, found: Mapping[str, float], told: Mapping[str, str]) -> None:
    """Draw each method's Dice minus that of the best fixed prompt, in points, with intervals.

    Args:
        ax: to draw on.
        found: of `results.table.summarise`.
        told: what each method learns from, in the order of the rows.
    """
    methods = [name for name in told if f"diff/{name}_vs_fixed" in found]
    places = np.arange(len(methods))[::-1]
    ax.axvline(0, color="#333333", lw=1)
    for place, method in zip(places, methods, strict=True):
        mean, low, high = (
            100 * found[f"diff/{method}_vs_fixed{end}"] for end in ("", "_low", "_high")
        )
        colour = AFTER if told[method] in (LEARNED, STOPPED) else BEFORE
        ax.plot([low, high], [place, place], color=colour, lw=2)
        ax.plot(mean, place, "o", color=colour, ms=5)
    names = [f"{name_of(m, told)} ({found[f'dice/{m}']:.3f})" for m in methods]
    ax.set_yticks(places, names, fontsize=8)
    ax.set_xlabel("Dice points above the best fixed prompt, 95 % intervals")
    ax.set_title("held-out pictures; blue: paid by the reward network")


def draw_hacking(axes: Sequence[Axes], curves: pd.DataFrame) -> None:
    """Draw score and Dice of validation pictures during fine-tuning, one line a seed.

    Args:
        axes: one for the score, one for the Dice.
        curves: of `results.seed_run.SeedResult`.
    """
    for ax, column, title in zip(
        axes, ("reward", "dice"), ("reward network's score", "Dice (truth)"), strict=True
    ):
        for (run, colour), style in zip(
            (("finetune", AFTER), ("finetune_free", WRONG)), "-:", strict=True
        ):
            for number, (_, own) in enumerate(curves[curves["run"] == run].groupby("seed")):
                label = RUNS[run] if number == 0 else None
                ax.plot(own["steps"], own[column], style, color=colour, lw=1.4, label=label)
        ax.set_title(title)
        ax.set_xlabel("step of fine-tuning")
    axes[0].legend(loc="best", fontsize=8)


def draw_row(axes: Sequence[Axes], row: SheetRow, titled: bool) -> None:
    """Draw a picture, its true mask and its masks: correct green, wrong red, missed blue.

    Args:
        axes: two, and one for each mask.
        row: the picture with its masks.
        titled: draw the columns' titles, as in the first row.
    """
    for ax in axes:
        ax.set_xticks([])
        ax.set_yticks([])
        for side in ax.spines.values():
            side.set_visible(False)
    axes[0].imshow(row.image_HWC)
    axes[1].imshow(row.truth_HW, cmap="gray", vmin=0, vmax=1)
    if titled:
        axes[0].set_title("picture")
        axes[1].set_title("truth")
        axes[1].set_xlabel("masks: green is right,\nred is wrong, blue is missed", fontsize=7)
    for ax, shown in zip(axes[2:], row.shown, strict=True):
        ax.imshow(overlay(row, shown.mask_HW))
        if titled:
            ax.set_title(shown.title)
        words = textwrap.fill(shown.prompt, CHARACTERS, max_lines=3)
        ax.set_xlabel(f"Dice {shown.dice:.2f}\n{words}", fontsize=7)


def overlay(row: SheetRow, mask_HW: Mask) -> NDArray[np.uint8]:
    """Colour correct, wrong and missed pixels of a mask on the picture, HWC."""
    shown_HWC = row.image_HWC // 2
    for where_HW, colour in (
        (mask_HW & row.truth_HW, RIGHT),
        (mask_HW & ~row.truth_HW, WRONG),
        (~mask_HW & row.truth_HW, AFTER),
    ):
        shown_HWC[where_HW] = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return shown_HWC


def sheet(rows: Sequence[SheetRow]) -> Figure:
    """Draw the sheet of masks."""
    columns = 2 + len(rows[0].shown)
    figure = new_figure(2.2 * columns, 2.75 * len(rows) + 0.3)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for number, (axes, row) in enumerate(zip(grid, rows, strict=True)):
        draw_row(list(axes), row, titled=number == 0)
    return figure


def gains_figure(found: Mapping[str, float], told: Mapping[str, str]) -> Figure:
    """Draw `draw_gains` on a figure of its own."""
    figure = new_figure(9.0, 1.0 + 0.27 * len(told))
    draw_gains(figure.subplots(), found, told)
    return figure


def hacking_figure(curves: pd.DataFrame) -> Figure:
    """Draw `draw_hacking` on a figure of its own."""
    figure = new_figure(8.0, 2.8)
    draw_hacking(list(figure.subplots(1, 2)), curves)
    return figure


def overview(
    rows: Sequence[SheetRow],
    found: Mapping[str, float],
    told: Mapping[str, str],
    curves: pd.DataFrame,
) -> Figure:
    """Draw gains, fine-tuning curves and a few rows of masks on one figure."""
    heights = [1.0 + 0.24 * len(told), 2.6 * len(rows) + 0.3]
    figure = new_figure(13.5, sum(heights))
    upper, lower = figure.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
    if curves.empty:
        draw_gains(upper.subplots(), found, told)
    else:
        grid = upper.add_gridspec(2, 2, width_ratios=[1.7, 1])
        draw_gains(upper.add_subplot(grid[:, 0]), found, told)
        draw_hacking([upper.add_subplot(grid[0, 1]), upper.add_subplot(grid[1, 1])], curves)
    axes = lower.subplots(len(rows), 2 + len(rows[0].shown), squeeze=False)
    for number, (line, row) in enumerate(zip(axes, rows, strict=True)):
        draw_row(list(line), row, titled=number == 0)
    return figure
