from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from core_rl.loss_config import AdvantageConfig, AdvantageKind
from core_rl.objective.advantages import group_advantages
from core_rl.types import RewardTable
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


def exact_gradient(model: MetricSelector, worth_KK: Tensor) -> Tensor:
    """Gradient of the expected reward of the first query, by enumeration."""
    chance_KK = model.enumerate(model.encode(QUERIES[:1]))[0].exp()
    (gradient,) = torch.autograd.grad((chance_KK * worth_KK).sum(), model.to_query_TD)
    return gradient.flatten()


def stored_gradient(model: MetricSelector, record: CandidateRecord, worth_KK: Tensor) -> Tensor:
    """Gradient that a group of stored candidates gives."""
    prompt = model.encode(QUERIES[:1])
    actions = StoredSampler([record])(model, prompt, QUERIES[:1], 1.0)
    rewards_BG = worth_KK[actions.ids_BGT[..., 0], actions.ids_BGT[..., 1]]
    table = RewardTable(("r",), rewards_BG.unsqueeze(0), rewards_BG)
    config = AdvantageConfig(kind=AdvantageKind.mean, clip=1e6)
    advantages_BGT, _, _ = group_advantages(table, {"r": 1.0}, config, {}, actions)
    logp_BGT = model.log_probs(prompt, actions).logp_BGT
    total = (advantages_BGT * logp_BGT).sum() / actions.mask_BGT.any(dim=-1).sum()
    (gradient,) = torch.autograd.grad(total, model.to_query_TD)
    return gradient.flatten()


def test_draws_of_an_earlier_policy_give_the_gradient_of_the_present_one() -> None:
    torch.manual_seed(0)
    worth_KK = torch.rand(4, 4, generator=torch.Generator().manual_seed(1))
    model = policy()
    drawn = model.sample(model.encode(QUERIES[:1]), 50_000)
    assert drawn.logp_BGT is not None
    pointers = [tuple(ids) for ids in drawn.ids_BGT[0].tolist()]
    logp = dict(zip(pointers, drawn.logp_BGT[0].sum(dim=-1).tolist(), strict=True))
    times = Counter(pointers)
    found = tuple(
        Candidate(one, GenMethod.sample, logprob_score=logp[one], temperature=1.0) for one in times
    )
    with torch.no_grad():  # the policy moves on, far from the one that drew
        model.to_query_TD += torch.randn(model.to_query_TD.shape)
    exact = exact_gradient(model, worth_KK)

    def likeness(record: CandidateRecord) -> float:
        return cosine_similarity(stored_gradient(model, record, worth_KK), exact, dim=0).item()

    draws = CandidateRecord(18, POOL, found, tuple(times.values()))
    assert likeness(draws) > 0.999
    made = stored_gradient(model, draws, worth_KK).norm().item()
    assert made == pytest.approx(exact.norm().item(), rel=0.03)
    # The same candidates as a mere store have another gradient.
    assert likeness(CandidateRecord(18, POOL, found)) < 0.95


def test_rl_data_of_several_kinds_are_not_weighed() -> None:
    model = policy()
    assert StoredSampler(RECORDS)(model, model.encode(QUERIES), QUERIES, 1.0).share_BG is None
