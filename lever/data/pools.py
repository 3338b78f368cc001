"""Pools: which K demonstrations a query may choose from.

`rand` draws any, `text_sim` and `img_sim` take the nearest by question or picture, `mix` takes a
quarter by each and fills up at random.  A pool depends on the seed and the query alone, holds no
demonstration twice and never the query or another question about its picture, and is shuffled: a
place in it says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from lever.config import SamplerKind
from lever.data.world import Floats, Ints

# Shares of a pool: nearest by text, nearest by picture; the rest is random.
SHARES = {
    SamplerKind.rand: (0.0, 0.0),
    SamplerKind.text_sim: (1.0, 0.0),
    SamplerKind.img_sim: (0.0, 1.0),
    SamplerKind.mix: (0.25, 0.25),
}


def draw_pools(
    kind: SamplerKind,
    size: int,
    image_ND: Tensor,
    text_ND: Tensor,
    demos: range,
    queries: Sequence[int],
    seed: int,
    pictures: Sequence[int] | None = None,
) -> Ints:
    """Choose the pool of each query.

    Args:
        kind: any but `world`.
        size: K.
        image_ND: embeddings of pictures by id, unit length.
        text_ND: embeddings of questions by id, unit length.
        demos: ids of the bank, from 0.
        queries: ids; may lie in the bank.
        seed: with the query's id it decides every draw.
        pictures: id of each item's picture; None where no two items share one.

    Returns:
        Ids [queries, K].

    Raises:
        ValueError: a query has fewer than K demonstrations to choose from.
    """
    by_text, by_image = (round(share * size) for share in SHARES[kind])
    image, text = image_ND.numpy(), text_ND.numpy()
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
    """Places of the `count` best that are neither barred nor chosen."""
    if count == 0:
        return []
    score = np.where(barred, -np.inf, score)
    score[list(chosen)] = -np.inf
    return list(np.argpartition(-score, count - 1)[:count])
