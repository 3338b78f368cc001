"""The picture of what a step costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.speed_figures import draw_growth


def row(bench: str) -> dict[str, Any]:
    return {"bench": bench, "ours_cpu_s": 0.5, "theirs_cpu_s": 2.0}


GROUPS = [row(f"omni_g{group}_8s_apart") for group in (2, 4, 8, 16, 32)]
CLIPS = [row(f"omni_g8_{seconds:g}s_apart") for seconds in (2.0, 4.0, 16.0)]
OTHERS = [row("trl_fused"), row("omni_g8_8s_interleaved")]


def test_a_picture_is_drawn_of_both_curves(tmp_path: Path) -> None:
    path = tmp_path / "images" / "step.png"
    assert draw_growth([*OTHERS, *GROUPS, *CLIPS], path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_too_few_points_leave_the_picture_as_it_is(tmp_path: Path) -> None:
    for rows in ([], OTHERS, GROUPS, [*CLIPS, *OTHERS]):
        assert not draw_growth(rows, tmp_path / "step.png")
    assert not list(tmp_path.iterdir())
