"""Stored candidates in place of the policy's samples, for offline training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from core_rl.types import Actions, Policy, Prompt
from lever.candidates.rl_records import CandidateRecord
from lever.features.slate_features import SlateQuery


class StoredSampler:
    """Returns each query's stored candidates, padded to the longest group of the batch.

    The old log-probabilities are those of the policy when candidates are fetched: the ratio starts
    at 1.

    RL data are a mixture: beams and retrieved slates are not samples of a policy.  Learning from
    them orders the stored candidates; it does not follow the gradient of the expected reward (see
    `core_rl.objective.inclusion`), and where the policy is already better than its store it may
    lower it.  Records of independent draws (`CandidateRecord.times`) do follow it: each candidate
    is weighed by times * pi / mu, the policy now over the one that drew it (self-normalised
    importance sampling).

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
        records = [self._record(query) for query in queries]
        actions = padded([[one.pointer for one in record.candidates] for record in records])
        actions = actions.to(device)
        with torch.no_grad():
            logp_BGT = policy.log_probs(prompt, actions, temperature).logp_BGT
        share_BG = _shares(records, logp_BGT.sum(dim=-1))
        return replace(actions, logp_BGT=logp_BGT, share_BG=share_BG)

    def _record(self, query: SlateQuery) -> CandidateRecord:
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
        return record


def _shares(records: Sequence[CandidateRecord], logp_BG: Tensor) -> Tensor | None:
    """Weigh the candidates of records that are independent draws; None if no record is."""
    if not any(record.times for record in records):
        return None
    share_BG = torch.ones_like(logp_BG)
    for row, record in enumerate(records):
        if record.times:
            times = torch.tensor(record.times, device=logp_BG.device)
            drawn = torch.tensor([one.logprob_score for one in record.candidates]).to(logp_BG)
            log_weight = times.log() + logp_BG[row, : len(times)] - drawn
            share_BG[row, : len(times)] = (log_weight - log_weight.max()).exp()
    return share_BG


def padded(groups: Sequence[Sequence[tuple[int, ...]]]) -> Actions:
    """Make candidates of pointers of one length; shorter groups end in padding."""
    shape = len(groups), max(map(len, groups)), len(groups[0][0])
    ids_BGT = torch.zeros(shape, dtype=torch.long)
    mask_BGT = torch.zeros(shape, dtype=torch.bool)
    for row, group in enumerate(groups):
        ids_BGT[row, : len(group)] = torch.tensor(group)
        mask_BGT[row, : len(group)] = True
    return Actions(ids_BGT, mask_BGT)
