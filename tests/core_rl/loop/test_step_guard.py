"""Steps that are not finite leave weights, averages and checkpoints as they were."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from core_rl.config import DoctorConfig, HardwareConfig, OnNan
from core_rl.loop.module import GroupPolicyModule
from core_rl.loop.step_guard import IN_A_ROW, leave_out_non_finite
from core_rl.types import Actions, StepLogProbs
from tests.core_rl import faulty_runs as faulty
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

REWARD = PathReward([float(i) for i in range(9)])
QUIET = DoctorConfig(enabled=False)
needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed here"
)


class LossBreaks(ToyPolicy):
    """The loss of one scoring with gradients is not finite."""

    at = 3
    value = torch.nan
    scored = 0

    def log_probs(self, prompt: Tensor, actions: Actions, temperature: float = 1.0) -> StepLogProbs:
        scores = super().log_probs(prompt, actions, temperature)
        if not torch.is_grad_enabled():
            return scores
        self.scored += 1
        return StepLogProbs(scores.logp_BGT * self.value) if self.scored == self.at else scores


class Seen(Recorder):
    """Weights before every step and what was logged at its end; gradients may be gone."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped: list[int] = []

    def on_before_optimizer_step(self, *_: Any) -> None:
        pass

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any
    ) -> None:
        super().on_train_batch_start(trainer, pl_module)
        assert isinstance(pl_module, GroupPolicyModule)
        self.skipped.append(pl_module.guard.skipped)


def trained(folder: Path, module: GroupPolicyModule, *more: Any, **changes: Any) -> Seen:
    seen = Seen()
    torch.manual_seed(0)
    run(module, forever([0]), folder, callbacks=[seen, *more], doctor=QUIET, **changes)
    return seen


@pytest.mark.parametrize("broken_at", [0, 2])
def test_a_gradient_that_is_not_finite_is_never_applied(broken_at: int, tmp_path: Path) -> None:
    policy = ToyPolicy()
    module = module_of(policy, REWARD, phases(grpo(5)))
    seen = trained(tmp_path, module, faulty.Poisons(broken_at))
    after = [*seen.policies[1:], policy.logits.detach()]
    moved = [not torch.equal(a, b) for a, b in zip(seen.policies, after, strict=True)]
    assert moved == [step != broken_at for step in range(5)]
    assert bool(policy.logits.isfinite().all())
    (state,) = module.trainer.optimizers[0].state.values()
    assert int(state["step"]) == 4
    assert all(bool(value.isfinite().all()) for value in state.values())
    assert seen.skipped == [int(step > broken_at) for step in range(5)]
    assert float(module.trainer.callback_metrics["train/skipped"]) == 1


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_loss_that_is_not_finite_is_never_applied(value: float, tmp_path: Path) -> None:
    policy = LossBreaks()
    policy.value = value
    seen = trained(tmp_path, module_of(policy, REWARD, phases(grpo(5))))
    assert torch.equal(seen.policies[2], seen.policies[3])
    assert seen.skipped == [0, 0, 0, 1, 1]
    assert bool(policy.logits.isfinite().all())


def test_one_broken_micro_batch_leaves_the_whole_step_out(tmp_path: Path) -> None:
    policy = LossBreaks()
    module = module_of(policy, REWARD, phases(grpo(4)), trainer=settings(accumulation=2))
    seen = trained(tmp_path, module)
    assert torch.equal(seen.policies[2], seen.policies[4])
    assert not torch.equal(seen.policies[4], seen.policies[6])
    assert float(module.trainer.callback_metrics["train/skipped"]) == 1


def test_half_precision_weights_and_their_masters_stay(tmp_path: Path) -> None:
    policy = ToyPolicy().to(torch.bfloat16)
    module = module_of(policy, REWARD, phases(grpo(4)))
    seen = trained(tmp_path, module, faulty.Poisons(1))
    assert torch.equal(seen.policies[1], seen.policies[2])
    (master,) = module.trainer.optimizers[0].masters.values()
    assert bool(master.isfinite().all())


def test_a_run_may_be_stopped_instead(tmp_path: Path) -> None:
    module = module_of(ToyPolicy(), REWARD, phases(grpo(5)), trainer=settings(on_nan=OnNan.stop))
    with pytest.raises(ValueError, match=r"step 3: .*not applied.*trainer\.on_nan=stop.*lower"):
        trained(tmp_path, module, faulty.Poisons(2))
    assert bool(module.policy.logits.isfinite().all())


def test_a_run_that_leaves_everything_out_ends(tmp_path: Path) -> None:
    module = module_of(ToyPolicy(), REWARD, phases(grpo(2 * IN_A_ROW)))
    with pytest.raises(ValueError, match="nothing is learned"):
        trained(tmp_path, module, faulty.Poisons(*range(1, 2 * IN_A_ROW)))
    assert module.guard.skipped == IN_A_ROW


@needs_deepspeed
@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_under_deepspeed(stage: int, precision: str, accumulation: int, tmp_path: Path) -> None:
    policy = LossBreaks()
    trainer = settings(accumulation=accumulation)
    module = module_of(policy, REWARD, phases(grpo(4)), trainer=trainer)
    machine = HardwareConfig(strategy="deepspeed", zero_stage=stage, precision=precision)
    seen = trained(tmp_path, module, hardware=machine)
    before = seen.policies[::accumulation]
    broken = (LossBreaks.at - 1) // accumulation
    after = [*before[1:], policy.logits.detach()]
    moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert moved == [step != broken for step in range(4)]
    assert float(module.trainer.callback_metrics["train/skipped"]) == 1
    assert bool(policy.logits.isfinite().all())


def test_loops_of_others_leave_it_out_too() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    other = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.AdamW([weight, other], lr=0.1)
    leave_out_non_finite(optimizer)
    for gradient, moves in ((1.0, True), (torch.nan, False), (torch.inf, False), (2.0, True)):
        before = [p.detach().clone() for p in (weight, other)]
        weight.grad, other.grad = torch.tensor([1.0, gradient]), torch.ones(1)
        optimizer.step()
        changed = [not torch.equal(a, b) for a, b in zip(before, (weight, other), strict=True)]
        assert changed == [moves, moves]
