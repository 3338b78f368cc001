"""What the loop logs of a step and of held-out queries, and what a step leaves behind."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import SingleDeviceStrategy

from core_rl.objective.rewards import WeightedReward
from core_rl.types import Actions
from tests.core_rl.toy import (
    PathReward,
    Recorder,
    ToyPolicy,
    forever,
    grpo,
    module_of,
    phases,
    run,
    settings,
)

REWARDS = [0.0, 0.2, 0.1, 0.0, 1.0, 0.3, 0.1, 0.4, 0.2]  # of the 9 paths of 2 steps of 3 options


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_a_step_is_logged_as_the_mean_of_its_micro_batches(tmp_path: Path) -> None:
    path = PathReward(REWARDS)

    def judge(queries, actions: Actions) -> list[list[float | None]]:
        """Tell the candidates of query 1 apart, judge those of query 2 alike, and no others."""
        known: dict[int, list[float | None]] = {1: [0.0, 1.0], 2: [1.0, 1.0]}
        return [known.get(query, [None, None]) for query in queries]

    module = module_of(
        ToyPolicy(4), path, phases(grpo(2)), trainer=settings(accumulation=4), candidates=2
    )
    module.reward = WeightedReward({"path": path, "judge": judge}, {"path": 0.0, "judge": 1.0})
    recorder = Recorder()
    run(module, forever([0], [1], [2], [3]), tmp_path, callbacks=[recorder])
    for step in (recorder.metrics[3], recorder.metrics[7]):
        assert step["rollout/mixed_share"] == 0.25
        assert step["reward/judge"] == pytest.approx((0.5 + 1.0) / 2)  # of those that it judged
        assert step["reward/judge_unjudged"] == 0.5
    first = recorder.metrics[0]  # nothing was judged yet
    assert math.isnan(first["reward/judge"]) and first["rollout/mixed_share"] == 0


def test_a_loss_that_is_no_number_shows_in_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    module = module_of(ToyPolicy(), PathReward(REWARDS), phases(grpo(2)))
    seen: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: seen.update({name: value}))
    for value in (math.nan, 1.0):
        module._note({"train/loss": value, "reward/judge": value})
    module._log_noted()
    assert math.isnan(seen["train/loss"]) and seen["reward/judge"] == 1


def test_gradients_go_after_an_optimiser_step_and_not_within_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DeepSpeed counts micro-batches itself: Lightning calls its optimiser after each of them."""
    monkeypatch.setattr(SingleDeviceStrategy, "handles_gradient_accumulation", True)
    gone: list[bool] = []

    class Gradients(Callback):
        def on_train_batch_start(self, trainer, pl_module, *_) -> None:
            gone.append(pl_module.policy.logits.grad is None)

    trainer = settings(accumulation=2)
    module = module_of(ToyPolicy(), PathReward(REWARDS), phases(grpo(2)), trainer=trainer)
    run(module, forever([0]), tmp_path, callbacks=[Gradients()])
    assert gone == [True, False, True, False]


# -- validation ----------------------------------------------------------------------------------


def test_validation_rewards_the_most_probable_candidate(tmp_path: Path) -> None:
    policy, reward = ToyPolicy(), PathReward(REWARDS)
    module = module_of(policy, reward, phases(grpo(2)), trainer=settings(val_every=2))
    runner = run(module, forever([0]), tmp_path, held_out=[[0, 0]])
    greedy = policy.sample(policy.encode([0]), 1, temperature=0.0)
    assert runner.callback_metrics["val/reward"].item() == pytest.approx(reward([0], greedy)[0][0])
    assert runner.callback_metrics["val/path"] == runner.callback_metrics["val/reward"]


@pytest.mark.parametrize("path_weight", [1.0, 0.0])
def test_a_missing_judgement_of_a_held_out_query_is_not_a_zero(
    path_weight: float, tmp_path: Path
) -> None:
    def judge(queries, actions: Actions) -> list[list[float | None]]:
        return [[0.8 if query else None] * actions.num_candidates for query in queries]

    path = PathReward(REWARDS)
    module = module_of(ToyPolicy(2), path, phases(grpo(1)), trainer=settings(val_every=1))
    weights = {"path": path_weight, "judge": 0.5}
    module.reward = WeightedReward({"path": path, "judge": judge}, weights)
    seen = run(module, forever([0]), tmp_path, held_out=[[0], [1, 1]]).callback_metrics
    wanted = path_weight * float(seen["val/path"]) + 0.5 * 0.8
    assert float(seen["val/judge"]) == pytest.approx(0.8)
    assert float(seen["val/reward"]) == pytest.approx(wanted)
