"""Training by reward and on solutions, and what happens around it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core_rl.config import CurriculumConfig, DoctorConfig, PhaseConfig, PhaseKind, TrainerConfig
from core_rl.loop.module import FreshSampler, GroupPolicyModule
from core_rl.objective.curriculum import Curriculum
from core_rl.objective.rewards import WeightedReward
from core_rl.types import Actions
from omni_rl.data.record_files import Record
from omni_rl.data.splits import Splits
from omni_rl.learning import fit_policy as learn
from omni_rl.learning.fit_policy import Spent, Training, check_batch, solution_group
from omni_rl.policy.policy import OmniPolicy
from omni_rl.rewards.rules import Format
from omni_rl.settings import Settings
from tests.core_rl.toy import loop_settings


def unvalidated(splits: Splits) -> Splits:
    return replace(splits, val=[])


@pytest.mark.filterwarnings("ignore")  # Lightning on a run this short
def test_a_resumed_run_counts_the_processor_time_of_its_checkpoint(
    settings: Settings,
    splits: Splits,
    fresh_policy: Callable[..., OmniPolicy],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = iter(range(0, 10**6, 100))  # a clock that jumps ahead whenever it is read
    monkeypatch.setattr(learn, "cpu_seconds", lambda: float(next(now)))
    reward = WeightedReward({"format": Format()}, {"format": 1.0})

    def spent(steps: int, resume: str | None) -> Spent:
        trainer = replace(settings.trainer, max_steps=steps, checkpoint_every=1, resume=resume)
        run = replace(settings, trainer=trainer, doctor=DoctorConfig(enabled=False))
        return Training(fresh_policy(), run, unvalidated(splits), tmp_path, 0).by_reward(reward)

    first = spent(1, None)  # the clock is read at the start, for the checkpoint, at the end
    assert first == Spent(seconds=200, steps=1)
    assert spent(2, str(tmp_path)) == Spent(seconds=100 + 200, steps=2)


def by_length(queries: Sequence[Record], actions: Actions) -> list[list[float]]:
    return [[float(len(text)) for text in group] for group in actions.texts]


@pytest.mark.filterwarnings("ignore")  # Lightning on a run this short
def test_two_steps_under_autocast_on_a_processor_are_well(
    settings: Settings, splits: Splits, fresh_policy: Callable[..., OmniPolicy], tmp_path: Path
) -> None:
    """The doctor prepares media as the policy does: mel front ends do not support bfloat16."""
    hardware = replace(settings.hardware, precision="bf16-mixed")
    trainer = replace(settings.trainer, max_steps=2)
    run = replace(settings, trainer=trainer, hardware=hardware, doctor=DoctorConfig())
    reward = WeightedReward({"length": by_length}, {"length": 1.0})
    Training(fresh_policy(), run, unvalidated(splits), tmp_path, 0).by_reward(reward)
    rounds = json.loads((tmp_path / "health.json").read_text())["rounds"]
    assert [one["step"] for one in rounds] == [0, 1, 2]
    assert all(one["healthy"] for one in rounds)


@pytest.mark.filterwarnings("ignore")
def test_the_policy_of_the_last_step_is_placed_again_and_the_best_one_kept_later(
    settings: Settings,
    splits: Splits,
    fresh_policy: Callable[..., OmniPolicy],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    policy, best = fresh_policy(), tmp_path / "checkpoints" / "best"
    monkeypatch.setattr(learn, "placed", lambda *_: done.append("placed"))
    monkeypatch.setattr(policy, "restore", lambda folder: done.append(folder.name))
    trainer = replace(settings.trainer, max_steps=1)
    run = replace(settings, trainer=trainer, doctor=DoctorConfig(enabled=False))
    training = Training(policy, run, unvalidated(splits), tmp_path, 0)
    training.by_reward(WeightedReward({"format": Format()}, {"format": 1.0}))
    assert done == ["placed"]  # the policy of the last step is there to be scored
    best.mkdir(parents=True)
    training.keep_best()
    assert done == ["placed", "best"]
    assert (tmp_path / "checkpoints" / "final" / "config.json").exists()


# -- supervised training is RCE with a single candidate --------------------------------------------


@pytest.fixture(scope="module")
def policy(fresh_policy: Callable[..., OmniPolicy]) -> OmniPolicy:
    return fresh_policy(early=False)


def test_the_one_candidate_is_the_solution(policy, records) -> None:
    group = solution_group(policy, records)
    assert group.actions.texts == tuple((record.solution,) for record in records)
    decoded = policy.with_texts(group.actions).texts
    assert decoded == group.actions.texts
    last = group.actions.mask_BGT.sum(-1, keepdim=True) - 1
    assert (group.actions.ids_BGT.gather(-1, last) == policy.end_id).all()
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
        loop_settings(TrainerConfig()),
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


def test_a_token_that_is_never_drawn_is_named_in_a_solution(
    splits: Splits, fresh_policy: Callable[..., OmniPolicy]
) -> None:
    policy, record = fresh_policy(), splits.train[0]
    planted = replace(record, solution="<answer>A<|IMAGE|></answer>")
    with pytest.raises(ValueError, match=r"solution holds <\|IMAGE\|>, which .* never draw"):
        solution_group(policy, [record, planted])


def test_solutions_end_as_a_turn_of_the_chat(
    splits: Splits, fresh_policy: Callable[..., OmniPolicy]
) -> None:
    policy = fresh_policy()
    actions = solution_group(policy, splits.train[:1]).actions
    last = int(actions.ids_BGT[actions.mask_BGT][-1])
    assert policy.tokenizer.convert_ids_to_tokens(last) == "<|im_end|>"


def test_too_few_records_for_a_batch_are_refused_at_the_start(
    settings: Settings, splits: Splits
) -> None:
    large = replace(settings, trainer=replace(settings.trainer, batch_size=6))
    check_batch(splits.train[:6], large)
    with pytest.raises(ValueError, match=r"4 training records cannot fill a batch of 6 on 1"):
        check_batch(splits.train[:4], large)
