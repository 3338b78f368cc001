"""The report of a comparison: findings in words, `report.html`, `report.png` and `sheet.png`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from core_rl.files import write_text
from core_rl.results.html import render
from core_rl.results.plotting import save_png, style, svg_uri
from sa2va_rl.config import Source
from sa2va_rl.data.files import Sample
from sa2va_rl.results.methods import FIXED, LEARNED, TEST
from sa2va_rl.results.plots import (
    SheetRow,
    Shown,
    gains_figure,
    hacking_figure,
    overview,
    sheet,
)
from sa2va_rl.results.table import name_of
from sa2va_rl.rewards.verdicts import Masks
from sa2va_rl.segmenters.mask_cache import overlap
from sa2va_rl.settings import Settings

ON_OVERVIEW = 3  # pictures
WANTED_GAP = 0.6  # target for the share of the gap that is closed


@dataclass(frozen=True)
class Compared:
    """The results of a comparison.

    Attributes:
        found: metrics of the main table, of `results.table.summarise`.
        told: what each method learns from.
        seeds: number of seeds.
        tables: title -> text.
        curves: of fine-tuning; may be empty.
        rows: pictures for the sheet of masks.
    """

    found: Mapping[str, float]
    told: Mapping[str, str]
    seeds: int
    tables: Mapping[str, str]
    curves: pd.DataFrame
    rows: Sequence[SheetRow]


def sheet_rows(
    rows: pd.DataFrame,
    samples: Sequence[Sample],
    prompts: Sequence[str],
    masks: Masks,
    policy: str,
    count: int,
) -> list[SheetRow]:
    """Choose test pictures at even distances, and collect their masks under three methods.

    Args:
        rows: of `results.table.rows_of`, of one seed and size.
        samples: the test pictures, in order.
        prompts: texts, in order.
        masks: makes or reads the masks.
        policy: method that is shown between the best fixed prompt and the oracle.
        count: number of pictures at most.
    """
    columns = {FIXED: "best fixed", policy: "chosen", "oracle": "oracle"}
    places = {name: _choices(rows, name) for name in columns}
    found = []
    for picture in np.linspace(0, len(samples), min(count, len(samples)), endpoint=False):
        sample = samples[int(picture)]
        assert sample.truth_HW is not None, "a comparison has true masks"
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
    """Describe the main table in sentences.

    Args:
        found: of `results.table.summarise`.
        told: what each method learns from.
        seeds: number of seeds.
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


def write_report(folder: Path, settings: Settings, compared: Compared) -> None:
    """Write `report.html`, `report.png` (an overview) and `sheet.png`."""
    found, told, curves, rows = compared.found, compared.told, compared.curves, compared.rows
    with style():
        drawn = [("Dice above the best fixed prompt", gains_figure(found, told))]
        if not curves.empty:
            drawn.append(("score and Dice in fine-tuning", hacking_figure(curves)))
        masks = sheet(rows)
        images = [(alt, svg_uri(figure)) for alt, figure in [*drawn, ("masks", masks)]]
        save_png(masks, folder / "sheet.png")
        save_png(overview(rows[:ON_OVERVIEW], found, told, curves), folder / "report.png")
    page = render(
        "sa2va_rl",
        "compare.html.j2",
        name=f"{settings.model.name} on {settings.data_mix.name}",
        generated=settings.data_mix.source is Source.generated,
        findings=findings(found, told, compared.seeds),
        images=images,
        tables=list(compared.tables.items()),
    )
    write_text(folder / "report.html", page)
