"""Rewards, advantages and update point the same way, or the check says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from core_rl.doctor.direction import advantage_findings, direction_findings, reward_findings
from core_rl.doctor.findings import Finding, Verdict
from core_rl.objective.rewards import WeightedReward
from core_rl.types import Actions, Group
from tests.core_rl.toy import PathReward, ToyPolicy, grpo, module_of, phases

REWARD = PathReward([float(i) for i in range(9)])


def drawn(policy: ToyPolicy, seed: int = 0, **changes: object) -> Group:
    torch.manual_seed(seed)
    module = module_of(policy, REWARD, phases(grpo(1)), candidates=8)
    return replace(module.roll_out([0, 1, 2]).group, **changes)  # type: ignore[arg-type]


def verdict(found: list[Finding], index: int = 0) -> Verdict:
    return found[index].verdict


@pytest.mark.parametrize("seed", range(10))
def test_healthy_groups_agree_and_a_step_follows_them(seed: int) -> None:
    policy = ToyPolicy(queries=3, seed=seed)
    group = drawn(policy, seed)
    assert verdict(advantage_findings(group)) is Verdict.ok
    assert verdict(advantage_findings(group), 1) is Verdict.ok
    stepped(policy, group, sign=1.0)
    mask = group.actions.mask_BGT
    assert verdict(direction_findings(policy, group, mask, 1.0)) is Verdict.ok


def stepped(policy: ToyPolicy, group: Group, sign: float) -> None:
    logp = policy.log_probs(policy.encode(group.queries), group.actions).logp_BGT
    (-sign * group.advantages_BGT * logp).mean().backward()
    torch.optim.AdamW(policy.parameters(), lr=1e-3).step()


def test_a_flipped_advantage_is_found() -> None:
    group = drawn(ToyPolicy(queries=3))
    flipped = replace(group, advantages_BGT=-group.advantages_BGT)
    assert verdict(advantage_findings(flipped)) is Verdict.fail
    flat = replace(group, mixed_B=torch.zeros(3, dtype=torch.bool))
    assert verdict(advantage_findings(flat)) is Verdict.skipped


def test_advantages_that_are_centred_over_the_batch_are_found() -> None:
    group = drawn(ToyPolicy(queries=3))
    shift_B11 = torch.tensor([4.0, 0.0, -4.0]).view(3, 1, 1)  # an easy question and a hard one
    group = replace(group, advantages_BGT=group.advantages_BGT + shift_B11)
    found = advantage_findings(group)
    assert verdict(found, 0) is Verdict.ok and verdict(found, 1) is Verdict.fail
    assert verdict(advantage_findings(group, has_spans=True), 1) is Verdict.ok


def test_a_step_up_the_loss_is_found() -> None:
    policy = ToyPolicy(queries=3)
    group = drawn(policy)
    stepped(policy, group, sign=-1.0)
    found = direction_findings(policy, group, group.actions.mask_BGT, 1.0)
    assert verdict(found) is Verdict.fail and "wrong sign" in found[0].cause


def of_own_query(queries: Sequence[int], actions: Actions) -> list[list[float]]:
    return [
        [float(query + option) for option in row]
        for query, row in zip(queries, actions.ids_BGT[..., 0].tolist(), strict=True)
    ]


def of_the_first_query(queries: Sequence[int], actions: Actions) -> list[list[float]]:
    return of_own_query([queries[0]] * len(queries), actions)


def backwards(queries: Sequence[int], actions: Actions) -> list[list[float]]:
    return of_own_query(queries, actions)[::-1]


def by_chance(queries: Sequence[int], actions: Actions) -> list[list[float]]:
    return torch.rand(actions.ids_BGT.shape[:2]).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (of_own_query, Verdict.ok),
        (of_the_first_query, Verdict.fail),
        (backwards, Verdict.fail),
        (by_chance, Verdict.skipped),
    ],
)
def test_a_query_is_judged_alike_in_the_batch_and_alone(
    function: Callable[..., list[list[float]]], expected: Verdict
) -> None:
    reward = WeightedReward({"own": function}, {"own": 1.0})
    group = drawn(ToyPolicy(queries=3))
    group = replace(group, rewards=reward.score(group.queries, group.actions))
    assert verdict(reward_findings(reward, group)) is expected
