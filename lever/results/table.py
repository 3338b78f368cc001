"""The comparison over worlds: a table for people, metrics for `metrics.json`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core_rl.results.stats import Interval, bootstrap_mean, paired_bootstrap
from lever.data.world import Floats
from lever.results.world_scores import WorldScores

FROM, TO = "text_sim", "oracle"  # the gap that a method closes a share of
RESAMPLES = 4000

# Comparisons of two methods that the table ends with.
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
    """Join the worlds.

    Where all seeds test on the same queries, each query counts once, with its mean over the seeds:
    answering it again is no further evidence about other queries.  Such an interval says nothing of
    other seeds.  Questions about one picture are drawn together: they are no independent ones.

    Returns:
        Metrics and the table.  `score/<method>` with `_low` and `_high` (95 % bootstrap over worlds
        and their pictures), `expected/<selector>`, `gap_closed/<method>` with its interval where
        the oracle is known, `diff/<one>_vs_<other>` with its interval, `answerer_calls`, the mean
        over worlds, and `worlds`, the number of sets of queries.
    """
    names = list(worlds[0].scores)
    each = {name: [world.scores[name] for world in worlds] for name in names}
    shared = worlds[0].shared
    by_name = {name: _independent(values, shared) for name, values in each.items()}
    pictures = [world.pictures for world in worlds][: 1 if shared else None]
    metrics: dict[str, float] = {}
    for name, values in by_name.items():
        _put(metrics, f"score/{name}", bootstrap_mean(values, RESAMPLES, groups=pictures))
    for name in worlds[0].expected:
        drawn = _independent([world.expected[name] for world in worlds], shared)
        _put(metrics, f"expected/{name}", bootstrap_mean(drawn, RESAMPLES, groups=pictures))
    if TO in by_name:
        for name in names:
            gap = gap_closed(by_name[name], by_name[FROM], by_name[TO], pictures)
            _put(metrics, f"gap_closed/{name}", gap)
    for one, other in PAIRS:
        if one in by_name and other in by_name:
            diff = paired_bootstrap(by_name[one], by_name[other], RESAMPLES, groups=pictures)
            _put(metrics, f"diff/{one}_vs_{other}", diff)
    metrics["answerer_calls"] = float(np.mean([one.numbers["answerer_calls"] for one in worlds]))
    metrics["worlds"] = 1.0 if shared else float(len(worlds))
    return metrics, table(metrics, each)


def _independent(values: Sequence[Floats], shared: bool) -> list[Floats]:
    return [np.stack(values).mean(axis=0)] if shared else list(values)


def gap_closed(
    method: Sequence[Floats],
    low: Sequence[Floats],
    high: Sequence[Floats],
    pictures: Sequence[Sequence[int]],
    seed: int = 0,
) -> Interval:
    """Share of the way from one method to another, a ratio of means, with its interval.

    Worlds, then pictures with their queries inside each, are drawn with replacement, the same for
    all three.
    """
    rng = np.random.default_rng(seed)
    drawable = [_of_pictures(*world) for world in zip(method, low, high, pictures, strict=True)]
    means = []
    for _ in range(RESAMPLES):
        sums = np.zeros(3)
        for world in rng.integers(len(drawable), size=len(drawable)):
            totals, sizes = drawable[world]
            rows = rng.integers(sizes.size, size=sizes.size)
            sums += totals[:, rows].sum(axis=1) / sizes[rows].sum()
        means.append((sums[0] - sums[1]) / max(sums[2] - sums[1], 1e-9))
    whole = [np.mean([one.mean() for one in values]) for values in (method, low, high)]
    low_end, high_end = np.quantile(means, [0.025, 0.975])
    share = (whole[0] - whole[1]) / max(whole[2] - whole[1], 1e-9)
    return Interval(float(share), float(low_end), float(high_end))


def _of_pictures(
    method: Floats, low: Floats, high: Floats, pictures: Sequence[int]
) -> tuple[Floats, Floats]:
    """Sums of three methods over each picture's queries, [3, pictures], and their numbers."""
    _, places = np.unique(pictures, return_inverse=True)
    sums = [np.bincount(places, weights=values) for values in (method, low, high)]
    return np.stack(sums).astype(np.float64), np.bincount(places).astype(np.float64)


def table(metrics: dict[str, float], by_name: dict[str, list[Floats]]) -> str:
    """Write the rows for people, the best last."""
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
            lines.append(f"{name}: {mean:+.3f} [{low:+.3f}, {high:+.3f}]")
    return "\n".join(lines)


def _put(metrics: dict[str, float], name: str, found: Interval) -> None:
    metrics[name] = found.mean
    metrics[f"{name}_low"] = found.low
    metrics[f"{name}_high"] = found.high


def _three(metrics: dict[str, float], name: str) -> tuple[float, float, float]:
    return metrics[name], metrics[f"{name}_low"], metrics[f"{name}_high"]
