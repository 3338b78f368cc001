"""Stored candidates in place of the policy's samples, for offline training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from core_rl.types import Actions, Policy, Prompt
from lever.candidates.rl_records import CandidateRecord
from lever.features.slate_features import SlateQuery


class StoredSampler:
    """Returns each query's stored candidates, padded to the longest group of the batch.

    Beams and retrieved slates are not samples of a policy, so they have no log-probability of their
    own.  Their old log-probabilities are those of the policy when they are fetched: the ratio
    starts at 1.  Learning from them orders the stored candidates; it does not follow the gradient
    of the expected reward (see `core_rl.objective.inclusion`).

    Args:
        records: RL data; the order of a record's candidates is kept.
    """

    def __init__(self, records: Iterable[CandidateRecord]) -> None:
        self._records = {record.query: record for record in records}

    def __call__(
        self,
        policy: Policy[Prompt],
        prompt: Prompt,
        queries: Sequence[SlateQuery],
        temperature: float,
    ) -> Actions:
        """Fetch candidates.

        Raises:
            ValueError: a query is not in the store, or has another pool there.
        """
        device = next(policy.parameters()).device
        actions = padded([self._pointers(query) for query in queries]).to(device)
        with torch.no_grad():
            scores = policy.log_probs(prompt, actions, temperature)
        return replace(actions, logp_BGT=scores.logp_BGT)

    def _pointers(self, query: SlateQuery) -> list[tuple[int, ...]]:
        record = self._records.get(query.query)
        if record is None:
            raise ValueError(
                f"query {query.query}: no stored candidates; generate RL data for it first"
            )
        if record.pool != query.pool:
            raise ValueError(
                f"query {query.query}: pool: differs from that of its stored candidates; a query "
                "keeps one pool, in one order, from generation to inference"
            )
        return [one.pointer for one in record.candidates]


def padded(groups: Sequence[Sequence[tuple[int, ...]]]) -> Actions:
    """Make candidates of pointers of one length; shorter groups end in padding."""
    shape = len(groups), max(map(len, groups)), len(groups[0][0])
    ids_BGT = torch.zeros(shape, dtype=torch.long)
    mask_BGT = torch.zeros(shape, dtype=torch.bool)
    for row, group in enumerate(groups):
        ids_BGT[row, : len(group)] = torch.tensor(group)
        mask_BGT[row, : len(group)] = True
    return Actions(ids_BGT, mask_BGT)
