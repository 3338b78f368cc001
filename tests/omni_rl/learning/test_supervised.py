"""Supervised training is RCE with a single candidate."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core_rl.config import CurriculumConfig, PhaseConfig, PhaseKind, TrainerConfig
from core_rl.loop.module import FreshSampler, GroupPolicyModule
from core_rl.loss_config import LossConfig
from core_rl.objective.curriculum import Curriculum
from core_rl.objective.rewards import WeightedReward
from omni_rl.learning.supervised import solution_group
from omni_rl.rewards.rules import Format


@pytest.fixture(scope="module")
def policy(fresh_policy):
    return fresh_policy(early=False)


def test_the_one_candidate_is_the_solution(policy, records) -> None:
    group = solution_group(policy, records)
    assert group.actions.texts == tuple((record.solution,) for record in records)
    decoded = policy.with_texts(group.actions).texts
    assert decoded == group.actions.texts
    last = group.actions.mask_BGT.sum(-1, keepdim=True) - 1
    assert (group.actions.ids_BGT.gather(-1, last) == policy.stop_ids[0]).all()
    assert group.mixed_B.all() and group.rewards.names == ()


def test_a_group_lies_on_the_device_of_its_policy(fresh_policy, records) -> None:
    policy = fresh_policy()
    policy.model.to("meta")
    group = solution_group(policy, records)
    parts = (group.actions.mask_BGT, group.advantages_BGT, group.mixed_B)
    assert {part.device.type for part in parts} == {"meta"}


def test_a_record_without_a_solution_is_named(policy, records) -> None:
    bare = replace(records[1], solution="", origin="qa.json:7")
    with pytest.raises(ValueError, match=r"qa\.json:7.*no solution"):
        solution_group(policy, [records[0], bare])


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_the_loss_is_the_mean_cross_entropy_of_the_solutions(policy, records) -> None:
    curriculum = CurriculumConfig([PhaseConfig(PhaseKind.rce, steps=1)])
    module = GroupPolicyModule(
        policy,
        WeightedReward({"format": Format()}, {"format": 1.0}),
        Curriculum.resolve(curriculum, 1),
        LossConfig(),
        TrainerConfig(),
        FreshSampler(2),
    )
    group = solution_group(policy, records)
    loss = module.training_step(group, 0)
    each = []
    for record in records:  # one at a time, teacher-forced by the model's own loss
        inputs = policy.collate([record])
        ids = solution_group(policy, [record]).actions.ids_BGT[0]
        labels = torch.cat([torch.full_like(inputs["input_ids"], -100), ids], 1)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], ids], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        with torch.no_grad():
            logits = policy.model(**inputs).logits[0, :-1]
        logits[:, policy.suppress_ids] = float("-inf")
        each.append(torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum"))
    torch.testing.assert_close(loss.detach(), torch.stack(each).mean(), atol=1e-3, rtol=1e-5)
