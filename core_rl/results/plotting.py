"""What figures of every report share: one style, one colour a meaning, and how they are written.

Figures are made without pyplot (no window, no state that outlives them), inside `style()`.
"""

from __future__ import annotations

import base64
import io
import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from core_rl.files import atomically

BEFORE, AFTER = "#9aa7b4", "#1f6fb2"  # also told apart in grey
RIGHT, WRONG = "#1a7f4b", "#b3402a"
STYLE: Any = {  # matplotlib types its names one by one
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture everywhere
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "text.parse_math": False,  # a completion may hold any number of dollars
    "svg.hashsalt": "report",  # the same figure gives the same bytes
}


def style() -> AbstractContextManager[None]:
    """Draw and save figures inside this."""
    return rc_context(STYLE)


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure of a size in inches."""
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def row_of_axes(figure: Figure | SubFigure, count: int) -> list[Axes]:
    """Put axes side by side."""
    return list(figure.subplots(1, count, squeeze=False)[0])


def svg_uri(figure: Figure) -> str:
    """Encode a figure as a data URI that an `<img>` shows."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode()


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomically(path) as beside, warnings.catch_warnings():
        # A completion may hold any character; one without a glyph is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(beside, format="png", dpi=100, metadata={"Software": None})
