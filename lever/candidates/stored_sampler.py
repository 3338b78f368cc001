"""Candidates from a store instead of the policy: the sampler of offline learning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from core_rl.types import Actions, Policy, Prompt
from lever.candidates.rl_records import CandidateRecord
from lever.features.slate_features import SlateQuery


class StoredSampler:
    """Return each query's stored candidates, padded to the longest group of the batch.

    Beams and retrieved slates were drawn from no policy, so there is no probability they were drawn
    with.  Their old log-probabilities are those of the policy at the time they are fetched: the
    ratio starts at 1, whatever was trained before.

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
        groups = [self._pointers(query) for query in queries]
        size, shots = max(map(len, groups)), len(groups[0][0])
        ids_BGT = torch.zeros(len(groups), size, shots, dtype=torch.long)
        mask_BGT = torch.zeros_like(ids_BGT, dtype=torch.bool)
        for row, group in enumerate(groups):
            ids_BGT[row, : len(group)] = torch.tensor(group)
            mask_BGT[row, : len(group)] = True
        actions = Actions(ids_BGT.to(device), mask_BGT.to(device))
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
