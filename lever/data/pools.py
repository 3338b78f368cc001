"""Pools: the K demonstrations that may be chosen for a query.

`rand` draws at random, `text_sim` and `img_sim` take the nearest by question or picture, `mix`
takes a quarter by each and the rest at random.  A pool depends only on the seed and the query.  It
holds no demonstration twice, and neither the query nor another question about its picture.  It is
shuffled, so a place in it carries no information.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from lever.config import LeverDataConfig, SamplerKind
from lever.data.world import Floats, Ints

# Shares of a pool: nearest by question, nearest by picture; the rest is random.
POOLS_VERSION = 1  # raise when a pool changes
SHARES = {
    SamplerKind.rand: (0.0, 0.0),
    SamplerKind.text_sim: (1.0, 0.0),
    SamplerKind.img_sim: (0.0, 1.0),
    SamplerKind.mix: (0.25, 0.25),
}


def draw_pools(
    config: LeverDataConfig,
    rows: tuple[Tensor, Tensor],
    demos: range,
    queries: Sequence[int],
    seed: int,
    pictures: Sequence[int] | None = None,
) -> Ints:
    """Draw the pool of each query.

    Args:
        config: `sampler` (any but `world`) and `candidate_num`, K.
        rows: embeddings of pictures and of questions, each [N, D] by id, of unit length.
        demos: ids of the bank, from 0.
        queries: ids; may be in the bank.
        seed: of the draws, together with the query's id.
        pictures: id of each item's picture; None if no two items share a picture.

    Returns:
        Ids [queries, K].

    Raises:
        ValueError: a query has fewer than K demonstrations to choose from.
    """
    size = config.candidate_num
    by_text, by_image = (round(share * size) for share in SHARES[config.sampler])
    image, text = (part.numpy() for part in rows)
    shown = np.arange(len(image)) if pictures is None else np.asarray(pictures)
    bank = slice(demos.start, demos.stop)
    pools = np.empty((len(queries), size), dtype=np.int64)
    for row, query in enumerate(queries):
        rng = np.random.default_rng([seed, query])
        barred = shown[bank] == shown[query]
        free = int((~barred).sum())
        if free < size:
            raise ValueError(
                f"query {query}: pool: {free} demonstrations to choose from, expected at least "
                f"data_mix.candidate_num={size}"
            )
        chosen: list[int] = []
        for score, count in (
            (text[bank] @ text[query], by_text),
            (image[bank] @ image[query], by_image),
            (rng.uniform(size=len(demos)), size - by_text - by_image),
        ):
            chosen += _best(score, count, barred, chosen)
        pools[row] = rng.permutation(chosen) + demos.start
    return pools


def _best(score: Floats, count: int, barred: Ints, chosen: Sequence[int]) -> list[int]:
    """Return the places of the `count` highest scores that are neither barred nor chosen."""
    if count == 0:
        return []
    score = np.where(barred, -np.inf, score)
    score[list(chosen)] = -np.inf
    return list(np.argpartition(-score, count - 1)[:count])
