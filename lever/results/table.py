"""The comparison over worlds: a table for people, metrics for `metrics.json`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core_rl.results.stats import (
    Interval,
    as_metrics,
    mean_interval,
    paired_interval,
    ratio_interval,
)
from lever.data.world import Floats
from lever.results.world_scores import WorldScores

FROM, TO = "text_sim", "oracle"  # the two ends of the gap that methods close

# Pairs of methods that are compared at the end of the table.
PAIRS = (
    ("grpo", "sft"),
    ("grpo", "rce"),
    ("grpo", "offline"),
    ("grpo", "offline_equal"),
    ("grpo", "img1_txt1"),
    ("grpo", "untrained"),
    ("grpo", "shuffled"),
    ("grpo", "rce_longer"),
    ("grpo", "metric_pca"),
    ("grpo", "pointer"),
    ("grpo", "gpt2"),
    ("grpo", "mlp"),
    ("rce", "sft"),
    ("offline", "rce"),
    ("shuffled", "rce"),
)


def compare(worlds: Sequence[WorldScores]) -> tuple[dict[str, float], str]:
    """Compare the methods over all worlds.

    Questions about one picture count as one observation.  Where all seeds test on the same queries
    the intervals cover other seeds and other pictures, see `core_rl.results.stats`.

    Returns:
        Metrics and the table.  Each with `_low` and `_high` (95 %) and `/seed<n>`, the n-th world:
        `score/<method>`, `expected/<selector>`, `gap_closed/<method>` where the oracle is known and
        `diff/<one>_vs_<other>`, the last also with `_detectable`; `answerer_calls`, the mean over
        worlds, and `worlds`, the number of sets of queries.
    """
    names, shared = list(worlds[0].scores), worlds[0].shared
    pictures = [world.pictures for world in worlds]
    by_name = {name: [world.scores[name] for world in worlds] for name in names}
    metrics: dict[str, float] = {}
    for name, values in by_name.items():
        metrics |= as_metrics(f"score/{name}", mean_interval(values, pictures, shared))
    for name in worlds[0].expected:
        drawn = [world.expected[name] for world in worlds]
        metrics |= as_metrics(f"expected/{name}", mean_interval(drawn, pictures, shared))
    if TO in by_name:
        for name in names:
            gap = gap_closed(by_name[name], by_name[FROM], by_name[TO], pictures, shared)
            metrics |= as_metrics(f"gap_closed/{name}", gap)
    for one, other in PAIRS:
        if one in by_name and other in by_name:
            diff = paired_interval(by_name[one], by_name[other], pictures, shared)
            metrics |= as_metrics(f"diff/{one}_vs_{other}", diff)
    for name in worlds[0].validation:
        metrics[name] = float(np.mean([one.validation[name] for one in worlds]))
    metrics["answerer_calls"] = float(np.mean([one.answerer_calls for one in worlds]))
    metrics["worlds"] = 1.0 if shared else float(len(worlds))
    return metrics, table(metrics, by_name)


def gap_closed(
    method: Sequence[Floats],
    low: Sequence[Floats],
    high: Sequence[Floats],
    pictures: Sequence[Sequence[int]],
    shared: bool = False,
) -> Interval:
    """Share of the way from one method to another, a ratio of means, with its interval."""
    way = [to - start for to, start in zip(high, low, strict=True)]
    gone = [own - start for own, start in zip(method, low, strict=True)]
    return ratio_interval(gone, way, pictures, shared)


def table(metrics: dict[str, float], by_name: dict[str, list[Floats]]) -> str:
    """Return the table as text, the best method last."""
    seeds, worlds = len(next(iter(by_name.values()))), int(metrics["worlds"])
    lines = [
        f"{'method':<17}{'accuracy':>9}  {'95 % interval':<17}{'of the gap':>10}  "
        f"{'E[r]':>5}  a world"
    ]
    for name in sorted(by_name, key=lambda one: metrics[f"score/{one}"]):
        mean, low, high = _three(metrics, f"score/{name}")
        gap = metrics.get(f"gap_closed/{name}")
        drawn = metrics.get(f"expected/{name}")
        each = " ".join(f"{values.mean():.3f}" for values in by_name[name])
        lines.append(
            f"{name:<17}{mean:>9.3f}  [{low:.3f}, {high:.3f}]  "
            f"{'' if gap is None else f'{gap:.0%}':>9}  "
            f"{'' if drawn is None else f'{drawn:.3f}':>5}  {each}"
        )
    size = by_name[FROM][0].size
    same = f"{seeds} seeds on the same {size} held-out queries"
    lines.append(same if worlds < seeds else f"{worlds} worlds of {size} held-out queries")
    for key in metrics:
        if key.startswith("diff/") and f"{key}_low" in metrics:
            mean, low, high = _three(metrics, key)
            name = key.removeprefix("diff/").replace("_vs_", " - ")
            found = f"{name}: {mean:+.3f} [{low:+.3f}, {high:+.3f}]"
            lines.append(f"{found}, detectable {metrics[f'{key}_detectable']:.3f}")
    return "\n".join(lines)


def _three(metrics: dict[str, float], name: str) -> tuple[float, float, float]:
    return metrics[name], metrics[f"{name}_low"], metrics[f"{name}_high"]
