"""Bootstrap intervals over held-out items and over seeds.

Items of one seed are not independent of that seed's training run, so with several seeds the
resampling has two levels: seeds with replacement, then items with replacement inside each drawn
seed.  Items that are near copies of each other (frames of one film) are drawn together, as groups.
With few seeds (3, say) there are few different draws of them; such an interval shows the
spread that was seen and still understates what unseen seeds would add.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Items = Sequence[float] | Sequence[Sequence[float]] | Sequence[Floats] | Floats
# The group of each item, for each seed.
Groups = Sequence[Sequence[Hashable]]
# Of each group, the sum over its items and their number.
Clusters = tuple[Floats, Floats]

_CHUNK = 2_000_000  # item draws held in memory at once: 32 MB


@dataclass(frozen=True)
class Interval:
    """A mean and its percentile interval."""

    mean: float
    low: float
    high: float


def bootstrap_mean(
    values: Items,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
    groups: Groups | None = None,
) -> Interval:
    """Mean over seeds of the mean over items, with its bootstrap interval.

    Args:
        values: numbers of one seed's items, or such a sequence for each seed (lengths may differ).
        resamples: bootstrap draws.
        level: coverage, between 0 and 1.
        seed: of the resampling.
        groups: for each seed, the group of each item; None = every item its own.

    Raises:
        ValueError: nothing to average, a value that is not finite, or groups of other items.
    """
    seeds = _per_seed(values, "values")
    if groups is None:
        clusters = [(items, np.ones(items.size)) for items in seeds]
    else:
        clusters = [_clusters(*pair) for pair in zip(seeds, groups, strict=True)]
    draws = _resampled_means(clusters, resamples, np.random.default_rng(seed))
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(float(np.mean([items.mean() for items in seeds])), float(low), float(high))


def paired_bootstrap(
    after: Items,
    before: Items,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
    groups: Groups | None = None,
) -> Interval:
    """Mean of `after - before` item by item, with its bootstrap interval.

    Args:
        after: as `values` of `bootstrap_mean`.
        before: the same items in the same order.
        resamples: bootstrap draws.
        level: coverage, between 0 and 1.
        seed: of the resampling.
        groups: as of `bootstrap_mean`.

    Raises:
        ValueError: the two do not have the same items, or as for `bootstrap_mean`.
    """
    news, olds = _per_seed(after, "after"), _per_seed(before, "before")
    sizes = [items.size for items in news], [items.size for items in olds]
    if sizes[0] != sizes[1]:
        raise ValueError(f"paired items differ in number: {sizes[0]} after, {sizes[1]} before")
    gains = [new - old for new, old in zip(news, olds, strict=True)]
    return bootstrap_mean(gains, resamples, level, seed, groups)


def _per_seed(values: Items, name: str) -> list[Floats]:
    nested = len(values) > 0 and np.ndim(values[0]) == 1
    seeds = [np.asarray(items, dtype=np.float64) for items in (values if nested else [values])]
    if any(items.size == 0 for items in seeds):
        raise ValueError(f"{name}: expected at least one item for each seed")
    if not all(np.isfinite(items).all() for items in seeds):
        raise ValueError(f"{name}: expected finite numbers; leave unjudged items out of both sides")
    return seeds


def _clusters(items: Floats, groups: Sequence[Hashable]) -> Clusters:
    if len(groups) != items.size:
        raise ValueError(f"groups: {len(groups)} given for {items.size} items")
    places: dict[Hashable, int] = {}  # in the order of the items
    index = np.array([places.setdefault(group, len(places)) for group in groups])
    sums, sizes = np.bincount(index, weights=items), np.bincount(index)
    return np.asarray(sums, dtype=np.float64), np.asarray(sizes, dtype=np.float64)


def _resampled_means(seeds: Sequence[Clusters], resamples: int, rng: np.random.Generator) -> Floats:
    """Means of `resamples` two-level draws."""
    total = np.zeros(resamples)
    for _ in seeds:  # one slot of the drawn set of seeds
        drawn = rng.integers(len(seeds), size=resamples)
        for index, clusters in enumerate(seeds):
            rows = np.flatnonzero(drawn == index)
            total[rows] += _item_means(clusters, rows.size, rng)
    return total / len(seeds)


def _item_means(clusters: Clusters, count: int, rng: np.random.Generator) -> Floats:
    """Means of `count` draws of groups with replacement, in pieces that fit in memory."""
    sums, sizes = clusters
    piece = max(1, _CHUNK // sums.size)
    means = []
    for start in range(0, count, piece):
        drawn = rng.integers(sums.size, size=(min(piece, count - start), sums.size))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    return np.concatenate(means) if means else np.empty(0)
