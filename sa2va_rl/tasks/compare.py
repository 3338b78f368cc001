"""Experiments 1 to 3 and their baselines on the same held-out pictures, several seeds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from core_rl.files import write_text
from core_rl.run.parallel import Job, each
from sa2va_rl.compare_config import CompareConfig
from sa2va_rl.data.splits import load_splits
from sa2va_rl.learning.stages import open_masks
from sa2va_rl.results.methods import SHIFTED, TEST
from sa2va_rl.results.report import Compared, findings, sheet_rows, write_report
from sa2va_rl.results.seed_run import SeedResult, check_comparison, run_seed
from sa2va_rl.results.table import by_seed, histogram, summarise, text_table, told_of
from sa2va_rl.settings import Settings

log = logging.getLogger(__name__)

SHOWN_POLICY = "ppo_tuned"


def compare_methods(
    folder: Path, seed: int, compare: CompareConfig, **groups: Any
) -> dict[str, float]:
    """Compare every method on the test pictures of several seeds.

    Args:
        folder: of the run.
        seed: added to each of `trainer.seeds`.
        compare: sizes, and the settings of experiments 2 and 3b.
        groups: the fields of `sa2va_rl.settings.Settings`.

    Returns:
        `results.table.summarise` of the table of all training pictures; the same as `shifted/...`
        on the second test set and as `size<n>/...` of smaller tables;
        `seed<n>/gap_closed/<method>`; `reward_net/<metric>` and the segmenter's calls.

    Raises:
        ValueError: `trainer.resume` is set, or `check_comparison` refuses the settings.
    """
    settings = Settings(**groups)
    settings.refuse_resume()
    seeds = [seed + offset for offset in settings.trainer.seeds]
    check_comparison(settings, seeds[0])
    whole = load_splits(settings.data_mix, seeds[0])
    largest = len(whole.train)
    sizes = [largest, *sorted({size for size in compare.sizes if size < largest}, reverse=True)]
    results = run_all(settings, compare, seeds, sizes, folder)
    rows = pd.concat([result.rows for result in results], ignore_index=True)
    rows.to_parquet(folder / "samples.parquet", index=False)
    metrics, tables = report(rows, sizes, settings.prompts)
    told = told_of(rows[rows["size"] == largest])
    tables = {"findings": "\n".join(findings(metrics, told, len(seeds))), **tables}
    metrics |= _numbers(results, largest)
    text = "\n\n".join(f"{title}\n{body}" for title, body in tables.items())
    log.info("held-out pictures\n%s", text)
    write_text(folder / "report.txt", text + "\n")
    first = rows[(rows["size"] == largest) & (rows["seed"] == seeds[0])]
    curves = pd.concat([result.curves for result in results], ignore_index=True)
    masks = open_masks(settings)
    shown = sheet_rows(first, whole.test, settings.prompts, masks, SHOWN_POLICY, compare.shown)
    write_report(folder, settings, Compared(metrics, told, len(seeds), tables, curves, shown))
    return metrics


def run_all(
    settings: Settings,
    config: CompareConfig,
    seeds: Sequence[int],
    sizes: Sequence[int],
    folder: Path,
) -> list[SeedResult]:
    """Run every seed at every size, `trainer.workers` jobs at a time; the largest size first."""
    pairs = [(seed, size) for size in sizes for seed in seeds]
    settings = settings.side_by_side(len(pairs))
    jobs = [
        Job(
            f"seed {seed} with {size} pictures",
            folder / f"seed{seed}-{size}",
            run_seed,
            # `main` is decided here: seeds of files may have different numbers of pictures.
            (settings, config, seed, size, size == sizes[0]),
        )
        for seed, size in pairs
    ]
    return list(each(jobs, settings.trainer.workers).values())


def report(
    rows: pd.DataFrame, sizes: Sequence[int], prompts: Sequence[str]
) -> tuple[dict[str, float], dict[str, str]]:
    """Compute metrics and text tables from the rows of all seeds.

    Args:
        rows: of `SeedResult`, of every seed and size.
        sizes: the largest first.
        prompts: texts, in order.
    """
    metrics: dict[str, float] = {}
    tables: dict[str, str] = {}
    for size in sizes:
        for test_set in (TEST, SHIFTED):
            own = rows[(rows["size"] == size) & (rows["set"] == test_set)]
            if own.empty:
                continue
            prefix = "" if size == sizes[0] else f"size{size}/"
            prefix += "" if test_set == TEST else f"{SHIFTED}/"
            found = summarise(own)
            metrics |= {f"{prefix}{name}": value for name, value in found.items()}
            title = f"{size} training pictures, {test_set} pictures"
            tables[title] = text_table(found, told_of(own))
    main = rows[(rows["size"] == sizes[0]) & (rows["set"] == TEST)]
    seeds, shares = by_seed(main), histogram(main, len(prompts))
    for place, share in seeds.iterrows():
        metrics |= {f"seed{place}/gap_closed/{name}": value for name, value in share.items()}
    tables["share of the gap closed, by seed"] = seeds.T.round(2).to_string()
    tables["share of pictures by prompt"] = shares.round(2).to_string()
    tables["prompts"] = "\n".join(f"{place:>2} {text}" for place, text in enumerate(prompts))
    return metrics, tables


def _numbers(results: Sequence[SeedResult], largest: int) -> dict[str, float]:
    """Return the means of the reward networks' metrics in the main table, and the sum of calls."""
    main = [result.numbers for result in results if result.rows["size"].iloc[0] == largest]
    found = {str(name): float(value) for name, value in pd.DataFrame(main).mean().items()}
    found["segmenter_calls"] = sum(result.numbers["segmenter_calls"] for result in results)
    return found
