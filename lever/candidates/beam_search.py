"""Beam search for demonstrations that raise the probability of the reference answer.

    InfoScore(C) = log P(y | x, C) - log P(y | x)

y is the reference answer, x the query, C its demonstrations in prompt order; the log-probability is
the mean over the answer's tokens.  The score belongs to the whole set, not to its last
demonstration, so sets with different beginnings are comparable.  Higher is better, whatever the
sign.  `shot_scores` holds the gain of each shot over the set without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from core_rl.fingerprint import fingerprint
from lever.answerers.protocol import Answerer
from lever.candidates.beams import VERSION, Beam, BeamRecord, beam_entry, write_records
from lever.candidates.shards import Json, fill_shard
from lever.data.datasets import LeverData, Prompted
from lever.features.slate_features import SlateQuery
from lever.generation_config import BeamConfig, ConstructOrder, Split


def search_beams(
    answerer: Answerer, query: SlateQuery, answer: str, config: BeamConfig
) -> BeamRecord:
    """Find the best sets of demonstrations of one query.

    Each step extends every set by every unused candidate of the pool and keeps the best
    `beam_size`.

    Raises:
        ValueError: the pool is smaller than a set, or a score is not finite.
    """
    if len(query.pool) < config.few_shot:
        raise ValueError(
            f"query {query.query}: pool of {len(query.pool)}: expected at least the "
            f"beams.few_shot={config.few_shot} shots of a set"
        )
    [alone] = answerer.answer_logprob([Prompted(query.query)], [answer])
    left = config.construct_order is ConstructOrder.left
    kept = [Beam((), 0.0)]
    for _ in range(config.few_shot):
        sets = [
            (parent, (shot, *parent.shots) if left else (*parent.shots, shot))
            for parent in kept
            for shot in query.pool
            if shot not in parent.shots
        ]
        prompts = [Prompted(query.query, slate) for _, slate in sets]
        logp = answerer.answer_logprob(prompts, [answer] * len(prompts))
        grown = [
            _grown(query.query, parent, slate, value - alone, left)
            for (parent, slate), value in zip(sets, logp, strict=True)
        ]
        # Equal scores keep the order of the pool, which is random and fixed.
        kept = sorted(grown, key=lambda one: -one.score)[: config.beam_size]
    return BeamRecord(query.query, tuple(kept), query.pool)


def generate_beams(
    data: LeverData,
    answerer: Answerer,
    config: BeamConfig,
    folder: Path,
    seed: int,
) -> Path | None:
    """Make the beam file of a data set, or one shard of it.

    Args:
        data: with the queries.
        answerer: should have a cache.
        config: of the beams.
        folder: gets a subfolder with the shards, and the file unless `config.output` names it.
        seed: of the sample of `sample_num` queries.

    Returns:
        The file, for `lever.candidates.beams.read_beams`; None while other shards are missing.
    """
    queries = chosen_queries(data, config.split, config.sample_num, seed)
    by_id = {one.query: one for one in queries}
    references = data.references

    def make(missing: Sequence[int]) -> Iterator[tuple[int, Json]]:
        for query in missing:
            record = search_beams(answerer, by_id[query], references[query], config)
            yield query, beam_entry(record)

    key = beams_key(data, answerer, config, seed)
    shards = folder / f"beams-{key}"
    records = fill_shard(shards, list(by_id), config.start, config.end, make)
    if records is None:
        return None
    path = Path(config.output or shards / beam_file_name(data, config, len(queries)))
    meta = {
        "answerer": answerer.fingerprint,
        "data": data.fingerprint,
        "key": key,
        "score": "log P(answer | query, shots) - log P(answer | query), nats a token",
        "construct_order": config.construct_order.value,
    }
    write_records(path, VERSION, records, meta)
    return path


def beams_key(data: LeverData, answerer: Answerer, config: BeamConfig, seed: int) -> str:
    """Digest what the records of a beam file depend on; the shard is no part of it."""
    return fingerprint(
        data.fingerprint,
        answerer.fingerprint,
        config.beam_size,
        config.few_shot,
        config.construct_order,
        config.split,
        config.sample_num,
        seed if config.sample_num is not None else 0,
    )


def beam_file_name(data: LeverData, config: BeamConfig, queries: int) -> str:
    """Name a beam file after its settings, as published, with `_` in place of `:`."""
    return (
        f"vqa-{data.name}-scorer_infoscore-construct_order_{config.construct_order.value}"
        f"-beam_size_{config.beam_size}-few_shot_{config.few_shot}"
        f"-candidate_num_{len(data.train[0].pool)}-sample_num_{queries}.json"
    )


def chosen_queries(
    data: LeverData, split: Split, sample_num: int | None, seed: int
) -> tuple[SlateQuery, ...]:
    """Return the queries of a split, or a random sample of them, in their order.

    Raises:
        ValueError: there are not that many.
    """
    queries = data.split(split)
    if sample_num is None:
        return queries
    if not 1 <= sample_num <= len(queries):
        raise ValueError(
            f"sample_num={sample_num}: expected from 1 to the {len(queries)} queries of "
            f"{data.name}'s split {split.value}"
        )
    drawn = np.random.default_rng([seed, 21]).choice(len(queries), sample_num, replace=False)
    return tuple(queries[place] for place in sorted(drawn))


def _grown(query: int, parent: Beam, slate: tuple[int, ...], score: float, left: bool) -> Beam:
    if not math.isfinite(score):
        raise ValueError(
            f"query {query}: InfoScore of shots {list(slate)} is {score}: expected a finite "
            "number; does the answerer overflow in this precision?"
        )
    gain, gains = score - parent.score, parent.shot_scores
    return Beam(slate, score, (gain, *gains) if left else (*gains, gain))
