"""95 % t intervals over seeds and over held-out items, for means, paired differences and ratios.

A mean over S seeds of means over items has two sources of chance:

    seeds    S seed means, so S - 1 degrees of freedom
    groups   items that are near copies of each other (questions about one clip, frames of one
             film) are one observation, so (groups - 1) degrees of freedom

Which of them a figure has depends on the test data:

    one seed               groups only.  Says nothing of other training runs.
    seeds, own data each   seed means only: they vary with the training and with the items.
    seeds, one test file   both.  The seed means share their items, so their spread does not show
                           what other items would give.

With both sources the half-width is sqrt(t_seeds^2 V_seeds + t_groups^2 V_groups), the rule of
Howe (1974) for a sum of two means.  V_seeds already holds the chance of the single answer, so
this interval is somewhat wide.  `tests/core_rl/results/test_coverage.py` simulates the coverage.

Where all values are equal the interval has no width: it does not know what it has not seen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize
from scipy.stats import nct
from scipy.stats import t as student

Floats = NDArray[np.float64]
Items = Sequence[ArrayLike]  # for each seed the numbers of its items
Groups = Sequence[Sequence[Hashable]]  # for each seed the group of each item

POWER = 0.8


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its interval.

    Attributes:
        mean: over seeds of the mean over items.
        low: end of the interval; -inf where there is only one group of one seed.
        high: the other end.
        per_seed: the mean of each seed.
        detectable: the smallest true difference at which such an interval excludes 0 in 80 % of
            all experiments; None where the mean is no difference.
    """

    mean: float
    low: float
    high: float
    per_seed: tuple[float, ...] = ()
    detectable: float | None = None


def mean_interval(
    values: Items, groups: Groups | None = None, shared: bool = False, level: float = 0.95
) -> Interval:
    """Mean over seeds of the mean over items, with its t interval.

    Args:
        values: for each seed the numbers of its items; seeds may have different items.
        groups: for each seed the group of each item; None = every item its own.
        shared: all seeds are tested on one file, so that equal groups of different seeds are the
            same group (without `groups`: items at the same place are the same item).
        level: coverage, between 0 and 1.

    Raises:
        ValueError: nothing to average, a value that is not finite, groups of other items, or
            `shared` items that differ in number and have no groups.
    """
    return _interval(_per_seed(values, "values"), groups, shared, level)[0]


def paired_interval(
    after: Items,
    before: Items,
    groups: Groups | None = None,
    shared: bool = False,
    level: float = 0.95,
) -> Interval:
    """Mean of `after - before` item by item, with its interval and the detectable difference.

    Args:
        after: as `values` of `mean_interval`.
        before: the same items in the same order.
        groups: as of `mean_interval`.
        shared: as of `mean_interval`.
        level: as of `mean_interval`.

    Raises:
        ValueError: the two do not have the same items, or as for `mean_interval`.
    """
    news, olds = _per_seed(after, "after"), _per_seed(before, "before")
    sizes = [items.size for items in news], [items.size for items in olds]
    if sizes[0] != sizes[1]:
        raise ValueError(f"paired items differ in number: {sizes[0]} after, {sizes[1]} before")
    gains = [new - old for new, old in zip(news, olds, strict=True)]
    found, parts = _interval(gains, groups, shared, level)
    return replace(found, detectable=_detectable(parts, level))


def ratio_interval(
    numerators: Items,
    denominators: Items,
    groups: Groups | None = None,
    shared: bool = False,
    level: float = 0.95,
) -> Interval:
    """Ratio of two means with its interval by the delta method.

    Args:
        numerators: as `values` of `mean_interval`.
        denominators: of the same items; their mean is the unit of the ratio.
        groups: as of `mean_interval`.
        shared: as of `mean_interval`.
        level: as of `mean_interval`.

    Returns:
        NaN throughout where the denominators have a mean of 0.

    Raises:
        ValueError: as for `paired_interval`.
    """
    tops, bottoms = _per_seed(numerators, "numerators"), _per_seed(denominators, "denominators")
    if [one.size for one in tops] != [one.size for one in bottoms]:
        raise ValueError("numerators and denominators differ in number")
    unit = float(np.mean([one.mean() for one in bottoms]))
    if unit == 0:
        return Interval(math.nan, math.nan, math.nan, (math.nan,) * len(tops))
    ratio = float(np.mean([one.mean() for one in tops])) / unit
    pairs = list(zip(tops, bottoms, strict=True))
    # The ratio plus each item's influence on it: their mean is the ratio.
    spread = [ratio + (top - ratio * bottom) / unit for top, bottom in pairs]
    found, _ = _interval(spread, groups, shared, level)
    own = [
        float(top.mean() / bottom.mean()) if bottom.mean() else math.nan for top, bottom in pairs
    ]
    return replace(found, per_seed=tuple(own))


def as_metrics(name: str, found: Interval) -> dict[str, float]:
    """Name an interval's numbers for `metrics.json`.

    Returns:
        `<name>`, `<name>_low`, `<name>_high`; `<name>_detectable` of a difference; and with several
        seeds `<name>/seed<n>` for the n-th of them.
    """
    metrics = {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
    if found.detectable is not None:
        metrics[f"{name}_detectable"] = found.detectable
    if len(found.per_seed) > 1:
        metrics |= {f"{name}/seed{place}": mean for place, mean in enumerate(found.per_seed)}
    return metrics


def is_mean(name: str) -> bool:
    """Tell a mean's name from those of its interval, its seeds and its number of items (`_n`)."""
    return re.search(r"(_low|_high|_detectable|_n|/seed\d+)$", name) is None


_Part = tuple[float, int]  # variance of the mean from one source, and its degrees of freedom


def _interval(
    seeds: list[Floats], groups: Groups | None, shared: bool, level: float
) -> tuple[Interval, list[_Part]]:
    """Return the interval and the sources of chance that it counts."""
    labels = _labels(seeds, groups, shared)
    means = np.array([items.mean() for items in seeds])
    parts = []
    if len(seeds) > 1:
        parts.append((float(means.var(ddof=1) / means.size), means.size - 1))
    if shared or len(seeds) == 1:
        parts.append(_over_groups(seeds, labels))
    half = math.sqrt(sum(_quantile(level, freedom) ** 2 * part for part, freedom in parts))
    mean = float(means.mean())
    return Interval(mean, mean - half, mean + half, tuple(means.tolist())), parts


def _per_seed(values: Items, name: str) -> list[Floats]:
    seeds = [np.asarray(items, dtype=np.float64) for items in values]
    if not seeds or any(items.ndim != 1 or items.size == 0 for items in seeds):
        raise ValueError(f"{name}: expected a list of at least one item for each seed")
    if not all(np.isfinite(items).all() for items in seeds):
        raise ValueError(f"{name}: expected finite numbers; leave unjudged items out of both sides")
    return seeds


def _labels(seeds: list[Floats], groups: Groups | None, shared: bool) -> Groups:
    sizes = [items.size for items in seeds]
    if groups is None:
        if shared and len(set(sizes)) > 1:
            raise ValueError(f"seeds with {sizes} items on one file: name each item's group")
        return [range(size) for size in sizes]
    given = [len(one) for one in groups]
    if given != sizes:
        raise ValueError(f"groups: {given} given for {sizes} items")
    return groups


def _over_groups(seeds: list[Floats], labels: Groups) -> _Part:
    """Variance of the mean over groups; items weigh as in the mean over seeds of means."""
    sums: dict[Hashable, float] = {}
    for items, names in zip(seeds, labels, strict=True):
        shares = (items - items.mean()) / (items.size * len(seeds))
        for name, share in zip(names, shares.tolist(), strict=True):
            sums[name] = sums.get(name, 0.0) + share
    count = len(sums)
    if count == 1:
        return math.inf, 1  # nothing tells how another group would differ
    return count / (count - 1) * float(np.square(list(sums.values())).sum()), count - 1


@cache
def _quantile(level: float, freedom: int) -> float:
    return float(student.ppf((1 + level) / 2, freedom))


def _detectable(parts: list[_Part], level: float) -> float:
    """Smallest true difference that such an interval tells from 0 with probability `POWER`."""
    variance = sum(part for part, _ in parts)
    if variance == 0 or math.isinf(variance):
        return variance
    # Satterthwaite's degrees of freedom of a sum of variances.
    freedom = variance**2 / sum(part**2 / own for part, own in parts)
    bar = math.sqrt(sum(_quantile(level, own) ** 2 * part for part, own in parts) / variance)
    errors = optimize.brentq(lambda shift: nct.sf(bar, freedom, shift) - POWER, 0.0, 10 * bar)
    return float(errors) * math.sqrt(variance)
