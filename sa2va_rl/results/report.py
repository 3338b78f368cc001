"""What a comparison shows for people: `report.html`, `report.png` and `report.txt`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from core_rl.files import write_text
from core_rl.results.html import render
from core_rl.results.plotting import save_png, style, svg_uri
from sa2va_rl.data.files import Sample
from sa2va_rl.results import plots as figures
from sa2va_rl.results.methods import FIXED, LEARNED, TEST
from sa2va_rl.results.plots import SheetRow, Shown
from sa2va_rl.results.table import name_of
from sa2va_rl.rewards.verdicts import Masks
from sa2va_rl.segmenters.mask_cache import overlap

ON_OVERVIEW = 3  # pictures
WANTED_GAP = 0.6  # share of the way to the oracle


def sheet_rows(
    rows: pd.DataFrame,
    samples: Sequence[Sample],
    prompts: Sequence[str],
    masks: Masks,
    policy: str,
    count: int,
) -> list[SheetRow]:
    """Lay out test pictures at even distances, chosen without a look at the results.

    Args:
        rows: of `compare_table.rows_of`, of one seed, size and test set.
        samples: its pictures, in their order.
        prompts: texts by place.
        masks: where masks come from.
        policy: method whose choice is shown between the best fixed prompt and the oracle.
        count: pictures at most.
    """
    columns = {FIXED: "best fixed", policy: "chosen", "oracle": "oracle"}
    places = {name: _choices(rows, name) for name in columns}
    found = []
    for picture in np.linspace(0, len(samples), min(count, len(samples)), endpoint=False):
        sample = samples[int(picture)]
        assert sample.truth_HW is not None, "a comparison has truths"
        shown = []
        for method, title in columns.items():
            prompt = prompts[places[method][int(picture)]]
            mask_HW = masks(sample.image_HWC, prompt)
            shown.append(Shown(title, prompt, mask_HW, overlap(mask_HW, sample.truth_HW).dice))
        found.append(SheetRow(sample.image_HWC, sample.truth_HW, tuple(shown)))
    return found


def _choices(rows: pd.DataFrame, method: str) -> list[int]:
    own = rows[(rows["method"] == method) & (rows["set"] == TEST)].sort_values("picture")
    return [int(choice) for choice in own["choice"]]


def findings(found: Mapping[str, float], told: Mapping[str, str], seeds: int) -> list[str]:
    """Put the main table into plain sentences.

    Args:
        found: of `compare_table.summarise`.
        told: what each method learnt from.
        seeds: how many stand behind it.
    """
    gap = found["dice/oracle"] - found[f"dice/{FIXED}"]
    said = [
        f"{seeds} seed{'s' if seeds > 1 else ''}: best fixed prompt {found[f'dice/{FIXED}']:.3f} "
        f"Dice, each picture's best prompt {found['dice/oracle']:.3f}; the gap of {100 * gap:.1f} "
        "points is what a choice can win."
    ]
    one_call = [
        method
        for method in told
        if told[method] == LEARNED
        and found[f"calls/{method}"] == 1
        and not np.isnan(found[f"top_share/{method}"])
    ]
    for method in sorted(one_call, key=lambda name: -found[f"gap_closed/{name}"]):
        share = found[f"gap_closed/{method}"]
        low = found.get(f"diff/{method}_vs_{FIXED}_low", float("nan"))
        verdict = "above" if low > 0 else "not shown to be above"
        wanted = "" if share >= WANTED_GAP else f", short of the {100 * WANTED_GAP:.0f} % wanted"
        said.append(
            f"{name_of(method, told)}, one segmenter call a picture, no truth: "
            f"{100 * share:.0f} % of the gap{wanted}; {verdict} the best fixed prompt."
        )
    return said


def write_report(
    folder: Path,
    name: str,
    generated: bool,
    found: Mapping[str, float],
    told: Mapping[str, str],
    seeds: int,
    tables: Mapping[str, str],
    curves: pd.DataFrame,
    rows: Sequence[SheetRow],
) -> None:
    """Write `report.html`, `report.png` (an overview) and `sheet.png`.

    Args:
        folder: of the run.
        name: of model and data.
        generated: whether the pictures were drawn by the project.
        found: main table, of `compare_table.summarise`.
        told: what each method learnt from.
        seeds: how many stand behind it.
        tables: title -> text.
        curves: of fine-tuning; may be empty.
        rows: pictures for the sheet.
    """
    with style():
        drawn = [("Dice above the best fixed prompt", figures.gains_figure(found, told))]
        if not curves.empty:
            drawn.append(("score and Dice in fine-tuning", figures.hacking_figure(curves)))
        sheet = figures.sheet(rows)
        images = [(alt, svg_uri(figure)) for alt, figure in [*drawn, ("masks", sheet)]]
        save_png(sheet, folder / "sheet.png")
        save_png(figures.overview(rows[:ON_OVERVIEW], found, told, curves), folder / "report.png")
    page = render(
        "sa2va_rl",
        "compare.html.j2",
        name=name,
        generated=generated,
        findings=findings(found, told, seeds),
        images=images,
        tables=list(tables.items()),
    )
    write_text(folder / "report.html", page)
