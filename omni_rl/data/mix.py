"""Mixing of named sources by exact shares, from a seed."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


def counts_for(ratios: Mapping[str, float], total: int) -> dict[str, int]:
    """Split `total` by shares; every count is within 1 of its share, and their sum is `total`.

    Shares are rounded down, and the rest goes to the largest remainders (Hamilton's method), among
    equal ones to the earlier name.

    Args:
        ratios: share of each source, 0 or more, summing to 1.
        total: number of items, at least 1.

    Raises:
        ValueError: no shares, a negative one, a sum other than 1, or a total below 1.
    """
    if total < 1:
        raise ValueError(f"total={total}: a mix needs at least 1 item")
    if not ratios or not all(math.isfinite(ratio) and ratio >= 0 for ratio in ratios.values()):
        raise ValueError(f"ratios={dict(ratios)}: expected a share of 0 or more for each source")
    whole = sum(ratios.values())
    if abs(whole - 1.0) > 1e-6:
        raise ValueError(f"ratios={dict(ratios)} sum to {whole:g}, not 1{_scaled(ratios, whole)}")
    # Decimal shares: 0.3 of 1500 is 450, though the float is a little less than 0.3.
    shares = {name: Fraction(repr(float(ratio))) for name, ratio in ratios.items()}
    exact = {name: share * total / sum(shares.values()) for name, share in shares.items()}
    counts = {name: math.floor(value) for name, value in exact.items()}
    by_remainder = sorted(counts, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def draw(items: Sequence[T], count: int, rng: random.Random, replacement: bool = False) -> list[T]:
    """Draw `count` items.

    Without replacement the items are taken in shuffled order, and shuffled again after the last, so
    that no item is taken twice before each was taken once.

    Raises:
        ValueError: there is nothing to draw from.
    """
    if count > 0 and not items:
        raise ValueError(f"cannot draw {count} items from an empty source")
    if replacement:
        return rng.choices(items, k=count)
    drawn: list[T] = []
    while len(drawn) < count:
        drawn += rng.sample(items, k=len(items))
    return drawn[:count]


def mix(
    sources: Mapping[str, Sequence[T]],
    ratios: Mapping[str, float],
    total: int,
    seed: int,
    replacement: bool = False,
) -> list[T]:
    """Draw `total` items from named sources by their shares, in a shuffled order.

    The draw from a source depends only on the seed, its name and its items: with another ratio the
    same items come first.

    Args:
        sources: the items of each source.
        ratios: a share for each source, summing to 1; a source with share 0 may be empty.
        total: number of items.
        seed: of the draw and of the order.
        replacement: draw independently, instead of each item once before any is repeated.

    Raises:
        ValueError: names that differ, shares that do not sum to 1, or an empty source.
    """
    if set(sources) != set(ratios):
        raise ValueError(
            f"ratios name {sorted(ratios)}, sources are {sorted(sources)}: give each source a share"
        )
    mixed: list[T] = []
    for name, count in counts_for(ratios, total).items():
        items = sources[name]
        if count > 0 and not items:
            raise ValueError(
                f"source {name!r} is empty, but its share asks for {count} items: name other data "
                "or give it the share 0"
            )
        if count > len(items) and not replacement:
            log.warning(
                "source %s has %d items for %d places: they come %.1f times each",
                *(name, len(items), count, count / len(items)),
            )
        mixed += draw(items, count, random.Random(f"{seed}/{name}"), replacement)
        log.info("source %s: %d of %d items in the mix", name, count, len(items))
    random.Random(f"{seed}/order").shuffle(mixed)
    return mixed


def _scaled(ratios: Mapping[str, float], whole: float) -> str:
    """Return the shares in the same proportions with a sum of 1, as text."""
    if whole <= 0:
        return ""
    scaled = {name: round(ratio / whole, 4) for name, ratio in ratios.items()}
    return f"; in the same proportions: {scaled}"
