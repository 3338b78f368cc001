"""The report: sentences that follow the numbers, overlays, and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core_rl.results.plotting import AFTER, RIGHT, WRONG
from sa2va_rl.config import Sa2VAModelConfig
from sa2va_rl.results.methods import LEARNED, STOPPED, TEST, TRUTH
from sa2va_rl.results.plots import SheetRow, Shown, gains_figure, overlay
from sa2va_rl.results.report import Compared, findings, sheet_rows, write_report
from tests.sa2va_rl import toy
from tests.sa2va_rl.workshop import small_settings

TOLD = {"fixed": TRUTH, "oracle": TRUTH, "rerank": LEARNED, "ppo_tuned": LEARNED}


def table(share: float, low: float) -> dict[str, float]:
    numbers = {"dice/fixed": 0.6, "dice/oracle": 0.7}
    for method in TOLD:
        numbers |= {f"calls/{method}": 1.0, f"gap_closed/{method}": share}
        numbers |= {
            f"top_share/{method}": 0.4,
            f"dice/{method}": numbers.get(f"dice/{method}", 0.65),
        }
        if method != "fixed":
            key = f"diff/{method}_vs_fixed"
            numbers |= {key: 0.05, f"{key}_low": low, f"{key}_high": 0.08}
    return numbers | {"calls/rerank": 11.0}


def test_sentences_say_whether_the_target_is_met() -> None:
    met, missed = findings(table(0.7, 0.02), TOLD, 5), findings(table(0.4, -0.01), TOLD, 1)
    assert "10.0 points" in met[0] and met[0].startswith("5 seeds")
    assert len(met) == 2, "one call a picture and no truth: PPO alone"
    assert "70 % of the gap; above the best fixed prompt" in met[1]
    assert "40 % of the gap, short of the 60 % wanted; not shown to be above" in missed[1]


def test_the_figure_says_who_stopped_by_the_truth() -> None:
    found = table(0.7, 0.02) | {"dice/finetune": 0.65, "diff/finetune_vs_fixed": 0.05}
    found |= {"diff/finetune_vs_fixed_low": 0.02, "diff/finetune_vs_fixed_high": 0.08}
    (axes,) = gains_figure(found, {**TOLD, "finetune": STOPPED}).axes
    assert axes.get_yticklabels()[-1].get_text().endswith("stop by truth (0.650)")
    assert axes.lines[-1].get_color() == AFTER, "paid by the reward network all the same"


def hexadecimal(pixel: np.ndarray) -> str:
    return "#" + "".join(f"{value:02x}" for value in pixel)


def test_overlays_colour_right_wrong_and_missed() -> None:
    truth_HW, mask_HW = np.zeros((2, 2), dtype=bool), np.zeros((2, 2), dtype=bool)
    truth_HW[0], mask_HW[:, 0] = True, True
    row = SheetRow(np.full((2, 2, 3), 100, dtype=np.uint8), truth_HW, ())
    shown_HWC = overlay(row, mask_HW)
    assert hexadecimal(shown_HWC[0, 0]) == RIGHT
    assert hexadecimal(shown_HWC[1, 0]) == WRONG
    assert hexadecimal(shown_HWC[0, 1]) == AFTER
    assert shown_HWC[1, 1].tolist() == [50, 50, 50]


def rows() -> pd.DataFrame:
    choices = {"fixed": 1, "ppo_tuned": 0, "oracle": 2}
    parts = [
        pd.DataFrame({"picture": range(4), "choice": choice, "method": method, "set": TEST})
        for method, choice in choices.items()
    ]
    return pd.concat(parts, ignore_index=True)


def test_the_sheet_shows_each_methods_own_choice() -> None:
    found = sheet_rows(rows(), toy.pictures(4), toy.PROMPTS, toy.masks, "ppo_tuned", count=2)
    assert len(found) == 2
    titles = [(shown.title, shown.prompt) for shown in found[0].shown]
    assert titles == [("best fixed", "middle"), ("chosen", "dark"), ("oracle", "bright")]
    assert [shown.dice for shown in found[0].shown] == [pytest.approx(2 / 3), 1.0, 0.0]


@pytest.mark.parametrize("tuned", [True, False])
def test_the_files_are_written(tmp_path: Path, tuned: bool) -> None:
    curves = pd.DataFrame(
        {"steps": [0, 1] * 2, "reward": 0.5, "dice": 0.5, "distance": 0.0, "seed": 1}
    ).assign(run=["finetune"] * 2 + ["finetune_free"] * 2)
    shown = sheet_rows(rows(), toy.pictures(4), toy.PROMPTS, toy.masks, "ppo_tuned", count=2)
    settings = small_settings(tmp_path, model=Sa2VAModelConfig(name="a <model>"))
    tables, curves = {"a table": "x < y"}, curves if tuned else pd.DataFrame()
    write_report(tmp_path, settings, Compared(table(0.7, 0.02), TOLD, 2, tables, curves, shown))
    page = (tmp_path / "report.html").read_text()
    assert "a &lt;model&gt;" in page and "x &lt; y" in page and "generated" in page
    assert page.count("<img") == (3 if tuned else 2)
    for name in ("report.png", "sheet.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"
    assert isinstance(shown[0].shown[0], Shown)
