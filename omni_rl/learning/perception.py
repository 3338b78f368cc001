"""Test of perception: forced choice between the values of each known fact."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from omni_rl.data import scenes
from omni_rl.data.record import Record
from omni_rl.policy.policy import OmniPolicy
from omni_rl.policy.rollout import batched


@torch.no_grad()
def perceived(
    policy: OmniPolicy, records: Sequence[Record], batch_size: int = 24
) -> dict[str, float]:
    """Share of clips where the true value of a slot is the most probable of its values.

    The honest context up to the clause about the slot is scored once with each value.  A blind
    model is right in 1 of as many cases as there are values.

    Args:
        policy: any policy over records.
        records: generated ones; instructions are left out.
        batch_size: clips a pass.

    Returns:
        Slot -> share in [0, 1], for the slots that occur.
    """
    shares = {}
    for slot, values in scenes.SLOTS.items():
        asked = [record for record in records if slot in record.facts]
        right = 0
        for batch in batched(asked, batch_size):
            actions = policy.actions_from_texts([_variants(record, slot) for record in batch])
            logp_BGT = policy.log_probs(policy.encode(batch), actions).logp_BGT
            # The context is cut off here, so the stop token must not count.
            logp_BG = (logp_BGT[..., :-1] * actions.mask_BGT[..., 1:]).sum(-1)
            truth_B = torch.tensor([values.index(record.facts[slot]) for record in batch])
            right += int((logp_BG.argmax(-1).cpu() == truth_B).sum())
        if asked:
            shares[slot] = right / len(asked)
    return shares


def _variants(record: Record, slot: str) -> list[str]:
    """Return the beginning of the context once with each value of `slot`."""
    truth = record.facts[slot]
    told: list[str] = []
    for clause in scenes.clauses(scenes.scene_of(record)):
        told.append(clause)
        if truth in clause.split():
            break
    return [
        "<context>" + ", ".join([*told[:-1], told[-1].replace(truth, value)])
        for value in scenes.SLOTS[slot]
    ]
