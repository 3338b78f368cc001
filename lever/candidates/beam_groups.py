"""Beam data as groups of candidates, for supervision and RCE."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from core_rl.objective.advantages import is_mixed
from core_rl.types import Group, RewardTable
from lever.candidates.beams import BeamRecord, pointers
from lever.candidates.stored_sampler import padded
from lever.features.slate_features import SlateQuery


def beam_group(
    queries: Sequence[SlateQuery], beams: Mapping[int, BeamRecord], weighed: bool
) -> Group:
    """Make a `Group` of beams; the reward is the InfoScore if `weighed`, else equal."""
    records = [beams[one.query] for one in queries]
    actions = padded(
        [
            [pointers(f"query {one.query}: id_list", beam.shots, one.pool) for beam in record.beams]
            for one, record in zip(queries, records, strict=True)
        ]
    )
    total_BG = torch.full(actions.ids_BGT.shape[:2], math.nan)
    for row, record in enumerate(records):
        scores = [beam.score if weighed else 0.0 for beam in record.beams]
        total_BG[row, : len(scores)] = torch.tensor(scores)
    # There is no reward function; only the total is used.
    rewards = RewardTable((), total_BG.new_zeros(0, *total_BG.shape), total_BG)
    mixed_B = is_mixed(total_BG, actions.mask_BGT.any(dim=-1))
    return Group(queries, actions, rewards, torch.zeros(actions.ids_BGT.shape), mixed_B)
