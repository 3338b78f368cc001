"""Weighted rewards: what was said, what could not be judged, and who is told."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
from collections.abc import Sequence

import pytest
import torch

from core_rl.config import RewardConfig, Subset
from core_rl.loss_config import AdvantageConfig
from core_rl.objective.advantages import group_advantages
from core_rl.objective.curriculum import CandidateSubset
from core_rl.objective.losses import rce_weights
from core_rl.objective.rewards import ShuffledReward, WeightedReward, reward_stats
from core_rl.types import Actions, Query, RewardTable

QUERIES = ["q0", "q1"]
ACTIONS = Actions(
    ids_BGT=torch.zeros(2, 2, 1),
    mask_BGT=torch.ones(2, 2, 1, dtype=torch.bool),
    texts=(("a", "bb"), ("ccc", "")),
)
Values = list[list[float | None]]


def length(queries: Sequence[Query], actions: Actions) -> Values:
    return [[float(len(text)) for text in row] for row in actions.texts]


def fixed(queries: Sequence[Query], actions: Actions, values: Values) -> Values:
    return values


def saying(values: Values) -> functools.partial[Values]:
    return functools.partial(fixed, values=values)


async def slow_length(queries: Sequence[Query], actions: Actions) -> Values:
    await asyncio.sleep(0)
    return length(queries, actions)


class Constant:
    """What a `_target_` node builds."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, queries: Sequence[Query], actions: Actions) -> Values:
        return [[self.value] * actions.num_candidates for _ in queries]


class AsyncLength:
    async def __call__(self, queries: Sequence[Query], actions: Actions) -> Values:
        return await slow_length(queries, actions)


# -- values and totals ---------------------------------------------------------------------------


def test_totals_weigh_what_was_judged() -> None:
    reward = WeightedReward(
        {"length": length, "judge": saying([[1.0, None], [None, None]])},
        {"length": 0.5, "judge": 2.0},
    )
    table = reward.score(QUERIES, ACTIONS)
    assert table.names == ("length", "judge")
    assert table.values_RBG[0].tolist() == [[1.0, 2.0], [3.0, 0.0]]
    assert table.values_RBG[1].isnan().tolist() == [[False, True], [True, True]]
    # The judge's one word on query 0 is its mean there; of query 1 it says nothing at all.
    assert table.total_BG.tolist() == [[2.5, 3.0], [1.5, 0.0]]


# Right and wrong beams, whose log-likelihoods are known, then right and wrong retrieved ones.
RIGHT = [[1.0, 0.0, 1.0, 0.0]]
SCORE: list[list[float | None]] = [[-0.4, -1.2, None, None]]


def group_of_four() -> tuple[Actions, RewardTable]:
    ids_BGT = torch.arange(4).view(1, 4, 1)
    actions = Actions(ids_BGT, torch.ones_like(ids_BGT, dtype=torch.bool))
    functions = {"right": saying(RIGHT), "score": saying(SCORE)}
    return actions, WeightedReward(functions, {"right": 1.0, "score": 1.0}).score([0], actions)


def test_a_missing_judgement_is_no_bonus_where_judgements_are_negative() -> None:
    """Plain sums: .6, -1.2, 1.0, 0: the right retrieved one would be best because unjudged."""
    _, table = group_of_four()
    assert table.total_BG[0].tolist() == pytest.approx([0.6, -1.2, 0.2, -0.8])


def test_weights_and_subsets_order_candidates_as_the_advantages_do() -> None:
    actions, table = group_of_four()
    advantages_BGT, _, _ = group_advantages(
        table, {"right": 1.0, "score": 1.0}, AdvantageConfig(), {}, actions
    )
    order = advantages_BGT[0, :, 0].argsort(descending=True).tolist()
    assert order == [0, 2, 3, 1]
    weights_BG = rce_weights(table.total_BG, tau=0.5)
    # RCE z-scores the totals, so its logits are the advantages over tau.
    torch.testing.assert_close(weights_BG[0], (advantages_BGT[0, :, 0] / 0.5).softmax(0))
    chosen, _ = CandidateSubset(Subset.contrast)(actions, table)
    assert chosen.ids_BGT.flatten().tolist() == [order[0], order[2], order[3]]


def test_a_judge_that_fails_once_does_not_take_the_weight_away() -> None:
    ids_BGT = torch.arange(4).view(1, 4, 1)
    actions = Actions(ids_BGT, torch.ones_like(ids_BGT, dtype=torch.bool))

    def weights(judged: list[float | None]) -> list[float]:
        functions = {"right": saying([[1.0, 1.0, 0.0, 0.0]]), "judge": saying([judged])}
        reward = WeightedReward(functions, {"right": 1.0, "judge": 1.0})
        return rce_weights(reward.score([0], actions).total_BG, tau=0.5)[0].tolist()

    assert weights([0.8, None, 0.8, 0.8]) == pytest.approx(weights([0.8] * 4))


def test_a_total_is_missing_only_where_nothing_of_weight_was_judged() -> None:
    reward = WeightedReward(
        {"watch": length, "judge": saying([[1.0, None], [None, 0.0]])}, {"watch": 0.0, "judge": 1.0}
    )
    table = reward.score(QUERIES, ACTIONS)
    assert table.values_RBG[0].tolist() == [[1.0, 2.0], [3.0, 0.0]]  # run all the same
    assert table.total_BG.isnan().tolist() == [[False, True], [True, False]]
    assert table.total_BG[0, 0].item() == 1.0


def test_padding_candidates_are_not_judged() -> None:
    mask_BGT = torch.tensor([[[1], [0]], [[1], [1]]]).bool()
    padded = Actions(ACTIONS.ids_BGT, mask_BGT, texts=ACTIONS.texts)
    table = WeightedReward({"length": length}, {"length": 1.0}).score(QUERIES, padded)
    assert table.total_BG.isnan().tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0, 2.0]], "2 rows"),
        ([[1.0], [1.0]], "of 2"),
        ([[1.0, math.inf], [0.0, 0.0]], "inf: expected None or a finite number"),
        ([[1.0, math.nan], [0.0, 0.0]], "nan: expected None or a finite number"),
        ([[1.0, 1e300], [0.0, 0.0]], r"1e\+300: .* from -1e\+06 to 1e\+06"),
        ([[1.0, "good"], [0.0, 0.0]], "'good': expected None"),
    ],
)
def test_a_function_that_answers_wrongly_is_named(values: Values, message: str) -> None:
    reward = WeightedReward({"broken": saying(values)}, {"broken": 1.0})
    with pytest.raises(ValueError, match=f"'broken'.*{message}"):
        reward.score(QUERIES, ACTIONS)


def test_a_reward_does_not_end_the_run_by_leaving_python() -> None:
    def leaves(queries: Sequence[Query], actions: Actions) -> Values:
        raise SystemExit(0)

    async def leaves_later(queries: Sequence[Query], actions: Actions) -> Values:
        raise SystemExit

    for function in (leaves, leaves_later):
        reward = WeightedReward({"rude": function}, {"rude": 1.0})  # type: ignore[dict-item]
        with pytest.raises(RuntimeError, match=r"reward 'rude' called sys\.exit"):
            reward.score(QUERIES, ACTIONS)


def test_a_value_outside_its_range_names_the_function_and_the_setting() -> None:
    config = RewardConfig(
        functions={"kind": saying([[0.0, 1.0], [1.0 + 1e-8, 2.0]])},
        weights={"kind": 1.0},
        ranges={"kind": [0.0, 1.0]},
    )
    with pytest.raises(
        ValueError, match=r"'kind' returned 2\.0: .*from 0 to 1.*reward\.ranges\.kind"
    ):
        WeightedReward.from_config(config).score(QUERIES, ACTIONS)


@pytest.mark.parametrize("ranges", [{"other": [0, 1]}, {"kind": [1, 0]}, {"kind": [0.0]}])
def test_a_range_belongs_to_a_function(ranges: dict[str, list[float]]) -> None:
    with pytest.raises(ValueError, match=r"reward\.ranges\."):
        RewardConfig(functions={"kind": length}, weights={"kind": 1.0}, ranges=ranges)


# -- async functions -----------------------------------------------------------------------------


@pytest.mark.parametrize("judge", [slow_length, AsyncLength(), functools.partial(slow_length)])
def test_async_functions_answer_as_others_do(judge: object) -> None:
    reward = WeightedReward(
        {"judge": judge, "length": length},  # type: ignore[dict-item]
        {"judge": 1.0, "length": 1.0},
    )
    table = reward.score(QUERIES, ACTIONS)
    assert table.names == ("judge", "length")
    torch.testing.assert_close(table.values_RBG[0], table.values_RBG[1])


def test_async_functions_run_side_by_side() -> None:
    # Each lets the other start before it ends: one after the other, the first would be alone.
    started: list[str] = []

    async def wait_for_both(queries: Sequence[Query], actions: Actions, name: str) -> Values:
        started.append(name)
        for _ in range(100):  # turns of the loop, of which the other takes one to start
            await asyncio.sleep(0)
        assert len(started) == 2
        return length(queries, actions)

    names = ["one", "two"]
    functions = {name: functools.partial(wait_for_both, name=name) for name in names}
    WeightedReward(functions, dict.fromkeys(names, 1.0)).score(QUERIES, ACTIONS)  # type: ignore[arg-type]
    assert sorted(started) == names


def test_async_functions_also_run_inside_a_running_loop() -> None:
    reward = WeightedReward({"judge": slow_length}, {"judge": 1.0})  # type: ignore[dict-item]

    async def inside() -> RewardTable:
        return reward.score(QUERIES, ACTIONS)

    assert asyncio.run(inside()).total_BG.tolist() == [[1.0, 2.0], [3.0, 0.0]]


def test_an_error_inside_a_reward_is_not_swallowed() -> None:
    async def broken(queries: Sequence[Query], actions: Actions) -> Values:
        raise KeyError("field")

    with pytest.raises(KeyError, match="field"):
        WeightedReward({"judge": broken}, {"judge": 1.0}).score(QUERIES, ACTIONS)  # type: ignore[dict-item]


# -- statistics and the alarm --------------------------------------------------------------------


def test_statistics_by_hand() -> None:
    nan = math.nan
    values_RBG = torch.tensor([[[1.0, 3.0], [nan, 2.0]], [[nan, nan], [nan, nan]]])
    table = RewardTable(("a", "b"), values_RBG, values_RBG[0])
    stats = reward_stats(table)
    assert (stats["a"], stats["a_std"], stats["a_unjudged"]) == (2.0, 1.0, 0.25)
    assert math.isnan(stats["b"])
    assert math.isnan(stats["b_std"])
    assert stats["b_unjudged"] == 1.0
    assert (stats["total"], stats["total_unjudged"]) == (2.0, 0.25)


def test_padding_counts_in_no_statistic() -> None:
    values_RBG = torch.tensor([[[1.0, math.nan]]])
    stats = reward_stats(
        RewardTable(("a",), values_RBG, values_RBG[0]), torch.tensor([[True, False]])
    )
    assert (stats["a"], stats["a_std"], stats["a_unjudged"]) == (1.0, 0.0, 0.0)


def test_the_alarm_rings_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    deaf = saying([[None, None], [None, 1.0]])
    reward = WeightedReward(
        {"deaf": deaf, "length": length}, {"deaf": 1.0, "length": 1.0}, warn_every=3
    )
    counts = []
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            reward.score(QUERIES, ACTIONS)
            counts.append(len(caplog.records))
    assert counts == [1, 1, 1, 2, 2]
    assert "'deaf' could not judge 75 %" in caplog.text


def test_no_alarm_up_to_the_share_that_is_allowed(caplog: pytest.LogCaptureFixture) -> None:
    half = saying([[None, 0.0], [None, 1.0]])
    with caplog.at_level(logging.WARNING):
        WeightedReward({"half": half}, {"half": 1.0}, max_unjudged=0.5).score(QUERIES, ACTIONS)
    assert not caplog.records


# -- construction --------------------------------------------------------------------------------


def test_from_config_builds_targets_and_takes_callables() -> None:
    cfg = RewardConfig(
        functions={"constant": {"_target_": f"{__name__}.Constant", "value": 0.25}, "n": length},
        weights={"constant": 1.0, "n": 1.0},
        spans={"n": "context"},
    )
    reward = WeightedReward.from_config(cfg)
    assert reward.score(QUERIES, ACTIONS).total_BG.tolist() == [[1.25, 2.25], [3.25, 0.25]]
    assert reward.spans == {"n": "context"}


@pytest.mark.parametrize(
    ("functions", "weights", "spans", "message"),
    [
        ({}, {}, {}, "at least one"),
        ({"a": length}, {}, {}, r"no weight for \['a'\]"),
        ({"a": length}, {"a": 1.0, "b": 1.0}, {}, r"weights=\['b'\]"),
        ({"a": length}, {"a": 1.0}, {"b": "context"}, r"spans=\['b'\]"),
        ({"a": length}, {"a": math.nan}, {}, "finite"),
    ],
)
def test_names_that_do_not_fit_are_refused(
    functions: dict[str, object], weights: dict[str, float], spans: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        WeightedReward(functions, weights, spans)  # type: ignore[arg-type]


def test_a_node_that_is_no_function_is_refused() -> None:
    cfg = RewardConfig(functions={"a": 3}, weights={"a": 1.0})
    with pytest.raises(ValueError, match=r"reward.functions.a=3.*_target_"):
        WeightedReward.from_config(cfg)


def test_the_control_permutes_rewards_within_a_group_and_leaves_padding_and_held_out_alone() -> (
    None
):
    torch.manual_seed(0)
    values: Values = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, None, None]]
    shape = 2, 4, 1
    mask_BGT = torch.ones(shape, dtype=torch.bool)
    mask_BGT[1, 2:] = False
    actions = Actions(torch.zeros(shape, dtype=torch.long), mask_BGT)
    reward = ShuffledReward({"one": saying(values)}, {"one": 1.0})
    seen = [reward.score(QUERIES, actions).total_BG for _ in range(20)]
    assert any(not torch.equal(total[0], torch.tensor([1.0, 2.0, 3.0, 4.0])) for total in seen)
    for total_BG in seen:
        assert sorted(total_BG[0].tolist()) == [1, 2, 3, 4]
        assert sorted(total_BG[1, :2].tolist()) == [5, 6]
        assert total_BG[1, 2:].isnan().all()

    held_out = Actions(actions.ids_BGT[:, :1], mask_BGT[:, :1])
    single = ShuffledReward({"one": saying([[1.0], [5.0]])}, {"one": 1.0})
    assert single.score(QUERIES, held_out).total_BG.tolist() == [[1.0], [5.0]]
