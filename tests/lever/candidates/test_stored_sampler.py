from __future__ import annotations

import pytest
import torch

from lever.candidates.rl_records import Candidate, CandidateRecord, GenMethod
from lever.candidates.stored_sampler import StoredSampler
from lever.features.slate_features import FeatureTable, SlateQuery
from lever.model_config import LeverModelConfig
from lever.policy.selectors import MetricSelector

POOL = (3, 7, 1, 12)
RECORDS = [
    CandidateRecord(18, POOL, (one := Candidate((0, 1), GenMethod.random, vqa_acc_score=0.0),)),
    CandidateRecord(19, POOL, (one, Candidate((3, 2), GenMethod.random, vqa_acc_score=1.0))),
]
QUERIES = [SlateQuery(18, POOL), SlateQuery(19, POOL)]


def policy() -> MetricSelector:
    rows = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    return MetricSelector(FeatureTable(rows), LeverModelConfig(scale=1.0))


def test_stored_candidates_come_back_in_order_and_padded() -> None:
    model = policy()
    actions = StoredSampler(RECORDS)(model, model.encode(QUERIES), QUERIES, 1.0)
    assert actions.ids_BGT[1].tolist() == [[0, 1], [3, 2]]
    assert actions.ids_BGT[0, 0].tolist() == [0, 1]
    assert actions.mask_BGT.all(-1).tolist() == [[True, False], [True, True]]


def test_a_query_that_is_not_stored_or_has_another_pool_is_named() -> None:
    model, sampler = policy(), StoredSampler(RECORDS)
    for query, message in (
        (SlateQuery(17, POOL), "query 17: no stored candidates"),
        (SlateQuery(18, POOL[::-1]), "query 18: pool: differs"),
    ):
        with pytest.raises(ValueError, match=message):
            sampler(model, model.encode([query]), [query], 1.0)
