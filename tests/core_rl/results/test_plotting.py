"""Figures are written whole, and the same figure gives the same bytes."""

from __future__ import annotations

import base64
from pathlib import Path

from core_rl.results.plotting import new_figure, row_of_axes, save_png, style, svg_uri


def drawn() -> str:
    with style():
        figure = new_figure(2.0, 1.0)
        for ax in row_of_axes(figure, 2):
            ax.plot([0, 1], [1, 0])
        return svg_uri(figure)


def test_the_same_figure_gives_the_same_bytes() -> None:
    head, _, body = drawn().partition(",")
    assert head == "data:image/svg+xml;base64"
    assert b"<svg" in base64.b64decode(body)
    assert drawn() == drawn()


def test_a_picture_is_written_and_nothing_beside_it(tmp_path: Path) -> None:
    with style():
        figure = new_figure(2.0, 1.0)
        figure.subplots().set_title("no glyph: \ufdd0, dollars: $5 and $6")
        save_png(figure, tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
