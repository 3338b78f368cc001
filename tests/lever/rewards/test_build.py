from __future__ import annotations

import pytest
import torch

from core_rl.config import RewardConfig
from core_rl.types import Actions
from lever.answerers.protocol import KernelICLAnswerer
from lever.config import LeverDataConfig
from lever.data.datasets import LeverData, generated_data
from lever.features.slate_features import FeatureTable
from lever.rewards.build import build_reward, needs_references
from lever.rewards.judges import build_judge
from tests.lever.worlds import SMALL

SOFT = {"_target_": "lever.rewards.functions.Soft"}
PROBABILITY = {"_target_": "lever.rewards.functions.AnswerProbability"}


@pytest.fixture(scope="module")
def data() -> LeverData:
    return generated_data(LeverDataConfig(world=SMALL, candidate_num=SMALL.pool_size), seed=0)


def all_pairs(data: LeverData, count: int) -> tuple[list, Actions]:  # type: ignore[type-arg]
    queries = list(data.train[:count])
    ids = torch.cartesian_prod(torch.arange(12), torch.arange(12))
    ids = ids[ids[:, 0] != ids[:, 1]].expand(count, -1, -1)
    return queries, Actions(ids, torch.ones_like(ids, dtype=torch.bool))


def test_functions_get_what_they_judge_by_and_those_of_weight_0_are_left_out(
    data: LeverData,
) -> None:
    assert data.world is not None
    judge = build_judge(data, KernelICLAnswerer(data.world))
    table = FeatureTable(torch.randn(len(data.items), 4))
    config = RewardConfig(
        {
            "soft": SOFT,
            "relevance": {"_target_": "lever.rewards.functions.Relevance"},
            "diversity": {"_target_": "lever.rewards.functions.Diversity"},
            "beam": {"_target_": "lever.rewards.functions.BeamScore"},
        },
        {"soft": 1.0, "relevance": 0.1, "diversity": 0.5, "beam": 0.0},
    )
    reward = build_reward(config, judge, data, table)
    assert list(reward.functions) == ["soft", "relevance", "diversity"]
    queries, actions = all_pairs(data, 2)
    assert reward.score(queries, actions).values_RBG.isfinite().all()


def test_the_control_deals_a_groups_rewards_at_random_and_judges_held_out_queries_truly(
    data: LeverData,
) -> None:
    assert data.world is not None
    torch.manual_seed(0)
    judge = build_judge(data, KernelICLAnswerer(data.world))
    table = FeatureTable(torch.randn(len(data.items), 4))
    true, dealt = (
        build_reward(RewardConfig({"soft": SOFT}, {"soft": 1.0}), judge, data, table, shuffled)
        for shuffled in (False, True)
    )
    queries, actions = all_pairs(data, 6)
    one, other = (reward.score(queries, actions).total_BG for reward in (true, dealt))
    assert torch.equal(one.sort().values, other.sort().values)
    assert not torch.equal(one, other)
    single = Actions(actions.ids_BGT[:, :1], actions.mask_BGT[:, :1])
    assert torch.equal(true.score(queries, single).total_BG, dealt.score(queries, single).total_BG)


def test_the_probability_of_the_reference_is_asked_for_only_where_it_counts() -> None:
    functions = {"soft": SOFT, "gt_prob": PROBABILITY}
    assert needs_references(RewardConfig(functions, {"soft": 1.0, "gt_prob": 1.0}))
    assert not needs_references(RewardConfig(functions, {"soft": 1.0, "gt_prob": 0.0}))


def test_a_function_that_is_no_node_is_named(data: LeverData) -> None:
    config = RewardConfig({"soft": "lever.rewards.functions.Soft"}, {"soft": 1.0})
    with pytest.raises(ValueError, match=r"reward\.functions\.soft='lever\.rewards\.functions"):
        build_reward(config, lambda slates: [], data, FeatureTable(torch.randn(3, 2)))
