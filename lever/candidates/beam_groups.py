"""Beam data as groups of candidates: what supervision and RCE learn from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from core_rl.objective.advantages import is_mixed
from core_rl.types import Actions, Group, RewardTable
from lever.candidates.beams import BeamRecord, pointers
from lever.features.slate_features import SlateQuery


def beam_group(
    queries: Sequence[SlateQuery], beams: Mapping[int, BeamRecord], weighed: bool
) -> Group:
    """Beams as candidates whose reward is their score, or nothing: then all weigh alike.

    Raises:
        ValueError: a beam's shot is outside the query's pool.
    """
    places = [
        [pointers(f"query {one.query}: id_list", beam.shots, one.pool) for beam in found.beams]
        for one, found in ((one, beams[one.query]) for one in queries)
    ]
    size = max(map(len, places))
    shape = len(queries), size, len(places[0][0])
    ids_BGT, total_BG = torch.zeros(shape, dtype=torch.long), torch.full(shape[:2], math.nan)
    mask_BGT = torch.zeros(shape, dtype=torch.bool)
    for row, (one, found) in enumerate(zip(queries, places, strict=True)):
        ids_BGT[row, : len(found)] = torch.tensor(found)
        mask_BGT[row, : len(found)] = True
        scores = [beam.score if weighed else 0.0 for beam in beams[one.query].beams]
        total_BG[row, : len(found)] = torch.tensor(scores)
    # No reward function has spoken: the total is all there is.
    rewards = RewardTable((), total_BG.new_zeros(0, *shape[:2]), total_BG)
    mixed_B = is_mixed(total_BG, mask_BGT.any(dim=-1))
    return Group(queries, Actions(ids_BGT, mask_BGT), rewards, torch.zeros(shape), mixed_B)
