"""Metrics of scored records: means with 95 % t intervals, and comparisons of two policies.

Tables are those of `omni_rl.rewards.scores.score_records`.  Questions about one clip are one
observation.  Seeds that are tested on the same clips are told from seeds with clips of their own
(see `core_rl.results.stats`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from core_rl.results.stats import (
    Interval,
    as_metrics,
    is_mean,
    mean_interval,
    paired_interval,
)
from omni_rl.rewards.answers import INSTRUCTION

# Sources whose accuracy stands for ability that must not drop.
GENERAL = ("video_r1",)
_KEYS = ["seed", "id", "clip"]


def item_values(table: pd.DataFrame, general: Collection[str] = GENERAL) -> dict[str, pd.Series]:
    """Lay out every metric as one number an item, so that each is a mean.

    A share of statements is a ratio of sums; its items are the ratio plus their influence on it
    (true - ratio * stated) / mean(stated), whose mean is the ratio (the delta method).

    Args:
        table: from `score_records`, of one seed or several.
        general: sources of `general_accuracy`.

    Returns:
        Metric -> values indexed by (seed, id), without the items it says nothing of; metrics that
        say nothing of any are left out.

    Raises:
        ValueError: a record stands in the table twice.
    """
    rows = table.set_index(_KEYS)
    twice = rows.index[rows.index.duplicated()]
    if len(twice):
        raise ValueError(f"{len(twice)} records are scored twice, the first id={twice[0][1]!r}")
    asked = rows[rows["problem_type"] != INSTRUCTION]
    values = {
        "accuracy": asked["accuracy"],
        "people_focus": asked["people_focus"],
        "grounded_focus": _ratio(asked["true_statements"], asked["statements"]),
        "format": asked["format"],
        "general_accuracy": asked.loc[asked["source"].isin(list(general)), "accuracy"],
        "instruction_following": rows.loc[rows["problem_type"] == INSTRUCTION, "accuracy"],
        "answered": asked["answer"].notna().astype(float),
    }
    if "people_focus_judge" in asked:
        values["people_focus_judge"] = asked["people_focus_judge"]
    for column in ("problem_type", "category", "source"):
        for name in sorted(set(asked[column]) - {""}):
            values[f"accuracy/{column}/{name}"] = asked.loc[asked[column] == name, "accuracy"]
    for name in _slots(asked):
        values[f"grounded/{name}"] = _ratio(asked[f"true_{name}"], asked[f"stated_{name}"])
    judged = {name: series.dropna() for name, series in values.items()}
    return {name: series for name, series in judged.items() if len(series)}


def summarise(table: pd.DataFrame, general: Collection[str] = GENERAL) -> dict[str, float]:
    """Average a table, with 95 % t intervals.

    Args:
        table: from `score_records`, of one seed or several.
        general: sources of `general_accuracy`.

    Returns:
        `<metric>`, `<metric>_low`, `<metric>_high` and, of several seeds, `<metric>/seed<n>` for
        `accuracy`, `people_focus`, `grounded_focus`, `format`, `general_accuracy`,
        `instruction_following`, `answered`, `accuracy/<problem_type|category|source>/<name>`,
        `grounded/<slot>` and, where a judge was asked, `people_focus_judge`; `<metric>_n`, the
        completions that it says something of; `items`, and `unjudged`, the share without an
        accuracy.
    """
    metrics: dict[str, float] = {}
    counts, seeds = _counts(table), sorted(set(table["seed"]))
    for name, series in item_values(table, general).items():
        metrics |= _named(name, mean_interval(*_by_seed(series)), series, seeds)
        metrics[f"{name}_n"] = float(counts.get(name, len(series)))
    metrics["items"] = float(len(table))
    metrics["unjudged"] = float(table["accuracy"].isna().mean())
    return metrics


def compare(
    before: pd.DataFrame, after: pd.DataFrame, general: Collection[str] = GENERAL
) -> dict[str, float]:
    """Pair two tables item by item, seed by seed.

    Items that either side could not judge are left out of both.

    Args:
        before: the start model's table.
        after: the trained model's, of the same records and seeds.
        general: sources of `general_accuracy`.

    Returns:
        `diff/<metric>`, the mean of after minus before, with `_low` and `_high` of its 95 %
        interval, `_detectable`, and `/seed<n>` where there are several seeds.

    Raises:
        ValueError: the tables are not of the same records and seeds.
    """
    olds, news = item_values(before, general), item_values(after, general)
    ours, theirs = (set(zip(t["seed"], t["id"], strict=True)) for t in (before, after))
    if ours != theirs:
        odd = sorted(ours ^ theirs)
        raise ValueError(
            f"{len(odd)} records stand in one of the two tables only, the first seed={odd[0][0]} "
            f"id={odd[0][1]!r}: compare the same records"
        )
    metrics: dict[str, float] = {}
    seeds = sorted(set(before["seed"]))
    for name in (name for name in olds if name in news):
        old, new = olds[name].align(news[name], join="inner")
        if len(old):
            (values, clips, shared), earlier = _by_seed(new), _by_seed(old)[0]
            found = paired_interval(values, earlier, clips, shared)
            metrics |= _named(f"diff/{name}", found, new, seeds)
    return metrics


def before_after(
    before: pd.DataFrame,
    after: pd.DataFrame,
    general: Collection[str] = GENERAL,
    names: Iterable[str] | None = None,
) -> tuple[dict[str, float], str]:
    """Compare the start and the end of training.

    Returns:
        `before/<metric>` and `after/<metric>` (`summarise`) with `diff/<metric>` (`compare`), and
        the table of `before_after_table` about `names`.
    """
    old, new = summarise(before, general), summarise(after, general)
    diff = compare(before, after, general)
    named = prefixed("before", old) | prefixed("after", new) | diff
    return named, before_after_table(old, new, diff, names)


def prefixed(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Put metrics under a name: `<prefix>/<metric>`."""
    return {f"{prefix}/{name}": value for name, value in metrics.items()}


def before_after_table(
    before: Mapping[str, float],
    after: Mapping[str, float],
    diff: Mapping[str, float],
    names: Iterable[str] | None = None,
) -> str:
    """Lay out a comparison as text.

    Args:
        before: metrics of the start (`summarise`).
        after: metrics of the end.
        diff: their difference (`compare`).
        names: metrics in order; None: all that were compared.

    Returns:
        One line a metric: before, after, the completions that each is over, their difference with
        its 95 % interval, and the smallest difference that the comparison could have shown; of
        several seeds another line with the values of each.
    """
    if names is None:
        compared = (key.removeprefix("diff/") for key in diff)
        names = [key for key in compared if key in before and is_mean(key)]
    shown = [name for name in names if name in before and name in after]
    width = max([len("metric"), *map(len, shown)])
    head = "before   after       n, n  change  95 % interval     detectable"
    lines = [f"{'metric':<{width}}  {head}"]
    for name in shown:
        over = ", ".join(f"{side.get(f'{name}_n', math.nan):.0f}" for side in (before, after))
        change = ""
        if f"diff/{name}" in diff:
            ends = ("", "_low", "_high", "_detectable")
            mean, low, high, least = (diff[f"diff/{name}{end}"] for end in ends)
            change = f"  {mean:+6.3f}  [{low:+.3f}, {high:+.3f}]  {least:.3f}"
        lines.append(f"{name:<{width}}  {before[name]:6.3f}  {after[name]:6.3f}  {over:>8}{change}")
        seeds = [key for key in of_metric(after, name) if "/seed" in key and key in before]
        if seeds:
            told = ", ".join(f"{before[key]:.3f} -> {after[key]:.3f}" for key in seeds)
            lines.append(f"{'':<{width}}  by seed {told}")
    return "\n".join(lines)


def of_metric(metrics: Mapping[str, float], name: str) -> dict[str, float]:
    """Pick what `summarise` and `compare` say of one metric: mean, interval, n and seeds."""
    ends = {f"{name}{end}" for end in ("", "_low", "_high", "_detectable", "_n")}
    return {
        key: value
        for key, value in metrics.items()
        if key in ends or key.startswith(f"{name}/seed")
    }


def _counts(table: pd.DataFrame) -> dict[str, int]:
    """Count the completions that state anything: what the shares of true statements are over."""
    asked = table[table["problem_type"] != INSTRUCTION]
    names = {"statements": "grounded_focus"} | {
        f"stated_{slot}": f"grounded/{slot}" for slot in _slots(asked)
    }
    return {metric: int((asked[column] > 0).sum()) for column, metric in names.items()}


def _slots(rows: pd.DataFrame) -> list[str]:
    return [str(name)[len("stated_") :] for name in rows if str(name).startswith("stated_")]


def _ratio(true: pd.Series, stated: pd.Series) -> pd.Series:
    """Spread a ratio of sums over its items, seed by seed; NaN where a seed stated nothing."""
    seeds = stated.index.get_level_values("seed")
    mean_stated = stated.groupby(seeds).transform("mean")
    ratio = true.groupby(seeds).transform("mean") / mean_stated.where(mean_stated > 0)
    return ratio + (true - ratio * stated) / mean_stated.where(mean_stated > 0)


def _by_seed(series: pd.Series) -> tuple[list[list[float]], list[list[str]], bool]:
    """Lay out a metric by seed: values, their clips, and whether seeds share clips."""
    seeds = [group for _, group in series.groupby(level="seed")]
    clips = [group.index.get_level_values("clip").tolist() for group in seeds]
    shared = sum(len(set(one)) for one in clips) > len({clip for one in clips for clip in one})
    return [group.tolist() for group in seeds], clips, shared


def _named(name: str, found: Interval, series: pd.Series, seeds: Sequence[int]) -> dict[str, float]:
    """Name an interval's numbers; `/seed<n>` is the n-th seed, whichever the metric has."""
    metrics = as_metrics(name, replace(found, per_seed=()))
    if len(seeds) > 1:
        own = sorted(set(series.index.get_level_values("seed")))
        places = map(list(seeds).index, own)
        metrics |= {f"{name}/seed{n}": mean for n, mean in zip(places, found.per_seed, strict=True)}
    return metrics
