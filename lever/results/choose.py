"""Choose demonstrations: by a selector, by simple rules, by exhaustive search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from lever.answerers.protocol import Answerer, KernelICLAnswerer
from lever.answerers.text_kernel import TextKernelAnswerer
from lever.candidates.beams import BeamRecord
from lever.data.datasets import LeverData, Prompted
from lever.data.vqa_accuracy import MATCHERS, check_answers
from lever.data.world import Floats
from lever.features.slate_features import SlateQuery
from lever.generation_config import Matching
from lever.policy.slate_policy import SlatePolicy
from lever.rewards.functions import slates_of

Slates = dict[int, tuple[int, ...]]  # query -> demonstrations, in prompt order

BATCH = 64
SLATES_TRIED = 200  # in the search for the best constant slate


def by_selector(
    policy: SlatePolicy, queries: Sequence[SlateQuery], shots: int | None = None
) -> Slates:
    """Take the most probable next demonstration at each step.

    `shots` may differ from that of the training; further steps use the parameters of the last.
    """
    frozen = policy.frozen_copy()
    frozen.shots = policy.shots if shots is None else shots
    found: Slates = {}
    with torch.no_grad():
        for at in range(0, len(queries), BATCH):
            some = queries[at : at + BATCH]
            drawn = frozen.sample(frozen.encode(some), 1, temperature=0.0)
            for row in slates_of(some, drawn):
                assert row[0] is not None
                found[row[0][0]] = row[0][1]
    return found


def by_similarity(
    data: LeverData, queries: Sequence[SlateQuery], shots: int, image: float, text: float
) -> Slates:
    """Take the nearest by a weighted sum of the two cosines, the nearest last."""
    found: Slates = {}
    for one in queries:
        score_K = _likeness(data, one, image, text)
        best = score_K.topk(shots).indices.flip(0).tolist()
        found[one.query] = tuple(one.pool[place] for place in best)
    return found


def by_both(data: LeverData, queries: Sequence[SlateQuery], shots: int) -> Slates:
    """Take the nearest by question and by picture in turn; the nearest by question stands last."""
    found: Slates = {}
    for one in queries:
        order = [_likeness(data, one, 0.0, 1.0), _likeness(data, one, 1.0, 0.0)]
        ranked = [score_K.argsort(descending=True, stable=True).tolist() for score_K in order]
        chosen: list[int] = []
        for step in range(shots):
            chosen.append(next(place for place in ranked[step % 2] if place not in chosen))
        found[one.query] = tuple(one.pool[place] for place in reversed(chosen))
    return found


def at_random(queries: Sequence[SlateQuery], shots: int, seed: int) -> Slates:
    """Draw from each pool; a query's draw depends only on the seed and the query."""
    return {
        one.query: tuple(
            np.random.default_rng([seed, one.query, 31])
            .choice(one.pool, shots, replace=False)
            .tolist()
        )
        for one in queries
    }


def best_constant(
    data: LeverData, answerer: Answerer, shots: int, seed: int, rule: Matching = Matching.official
) -> tuple[int, ...]:
    """Return the random slate of the bank that is best for the first 100 training queries."""
    rng = np.random.default_rng([seed, 32])
    bank = np.array(data.demos)
    tried = [tuple(rng.choice(bank, shots, replace=False).tolist()) for _ in range(SLATES_TRIED)]
    queries = [one.query for one in data.train[:100]]
    worth = [
        scores_of(data, answerer, {query: slate for query in queries if query not in slate}, rule)
        for slate in tried
    ]
    return tried[int(np.argmax([scores.mean() for scores in worth]))]


def by_beams(beams: Mapping[int, BeamRecord], queries: Sequence[SlateQuery]) -> Slates:
    """Take each query's best beam: a greedy search that knows the answer."""
    return {
        one.query: max(beams[one.query].beams, key=lambda beam: beam.score).shots for one in queries
    }


def answered(answerer: Answerer, slates: Slates) -> dict[int, str]:
    """Return the answer to each query with its demonstrations."""
    prompts = [Prompted(query, shots) for query, shots in slates.items()]
    return dict(zip(slates, answerer.generate(prompts), strict=True))


def scores_of(
    data: LeverData, answerer: Answerer, slates: Slates, rule: Matching = Matching.official
) -> Floats:
    """Return the accuracy of each query, in the order of the slates."""
    for query in slates:
        check_answers(f"query {query}", data.answers[query], rule)
    said = answered(answerer, slates)
    return np.array([MATCHERS[rule](said[query], data.answers[query]) for query in slates])


def pair_rewards(
    data: LeverData,
    answerer: Answerer,
    queries: Sequence[SlateQuery],
    rule: Matching = Matching.official,
) -> Floats | None:
    """Return the accuracy of all ordered pairs of each pool, [queries, K, K]; NaN on the diagonal.

    None for a model, which is too slow for this, and for the generated world with another rule
    than the official one.  `answerer` is one without a cache.
    """
    if isinstance(answerer, KernelICLAnswerer) and rule is Matching.official:
        return np.stack([answerer.reader.pair_rewards(one.query) for one in queries])
    if isinstance(answerer, TextKernelAnswerer):
        return np.stack([_text_pair_rewards(data, answerer, one, rule) for one in queries])
    return None


def expected_rewards(
    policy: SlatePolicy, queries: Sequence[SlateQuery], rewards_BKK: Floats
) -> Floats:
    """Return the exact expected accuracy of a pair sampled from the selector, for each query."""
    table = torch.from_numpy(np.nan_to_num(rewards_BKK)).float()
    parts = []
    with torch.no_grad():
        for at in range(0, len(queries), BATCH):
            chance = policy.enumerate(policy.encode(queries[at : at + BATCH])).exp()
            parts.append((chance * table[at : at + BATCH]).sum(dim=(1, 2)))
    return np.asarray(torch.cat(parts).double().numpy())


def _likeness(data: LeverData, one: SlateQuery, image: float, text: float) -> torch.Tensor:
    pool = list(one.pool)
    by_image = data.image_ND[pool] @ data.image_ND[one.query]
    return image * by_image + text * (data.text_ND[pool] @ data.text_ND[one.query])


def _text_pair_rewards(
    data: LeverData, answerer: TextKernelAnswerer, one: SlateQuery, rule: Matching
) -> Floats:
    check_answers(f"query {one.query}", data.answers[one.query], rule)
    texts, said_KK = answerer.pair_answers(one.query, one.pool)
    worth = np.full(len(texts) + 1, np.nan)  # the last place, -1, is for the diagonal
    for place in np.unique(said_KK[said_KK >= 0]):
        worth[place] = MATCHERS[rule](texts[place], data.answers[one.query])
    return worth[said_KK]
