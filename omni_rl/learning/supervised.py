"""Supervised fine-tuning on the records' own solutions: RCE with a single candidate."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from core_rl.types import Group, RewardTable
from omni_rl.data.record_files import Record
from omni_rl.policy.policy import OmniPolicy


def solution_group(policy: OmniPolicy, records: Sequence[Record]) -> Group:
    """Make a group of one candidate a record: its solution, with weight 1.

    Raises:
        ValueError: a record has no solution.
    """
    for record in records:
        if not record.solution:
            raise ValueError(
                f"{record.where}: no solution to imitate; supervised training needs one"
            )
    actions = policy.actions_from_texts([[record.solution] for record in records])
    shape = actions.mask_BGT.shape[:2]
    return Group(
        queries=records,
        actions=actions,
        rewards=RewardTable((), torch.zeros(0, *shape), torch.ones(shape)),
        advantages_BGT=torch.zeros(actions.mask_BGT.shape, device=policy.device),
        mixed_B=torch.ones(shape[0], dtype=torch.bool, device=policy.device),
    )
