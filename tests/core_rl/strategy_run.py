"""One of the processes of `test_strategies.py`: stored candidates under each strategy."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from core_rl.config import DoctorConfig, HardwareConfig
from core_rl.doctor.callback import with_others
from core_rl.doctor.findings import at_most
from core_rl.hardware import draw_apart
from core_rl.loop.module import GroupPolicyModule
from core_rl.loss_config import KLConfig, LossConfig, Reduction
from core_rl.types import Actions, StepLogProbs
from tests.core_rl.toy import (
    PathReward,
    ToyPolicy,
    forever,
    grpo,
    module_of,
    one_query,
    phases,
    ragged,
    rows,
    run,
    settings,
    uneven,
)

STEPS = 4
LOSS = LossConfig(reduction=Reduction.dapo, kl=KLConfig(weight=0.3))
STRATEGIES = {
    "ddp": {"strategy": "ddp"},
    "zero1": {"strategy": "deepspeed", "zero_stage": 1},
    "zero2": {"strategy": "deepspeed", "zero_stage": 2},
    "zero3": {"strategy": "deepspeed", "zero_stage": 3},
}


def policy() -> ToyPolicy:
    return ToyPolicy(queries=2, options=3, steps=3, stop=2)


def trained(
    folder: Path, shares: list[int], hardware: HardwareConfig, start: ToyPolicy | None = None
) -> GroupPolicyModule:
    """Learn from the stored groups that are this process's share."""
    learner = start or policy()
    group = ragged(learner)
    reward = PathReward([float(i) for i in range(27)])
    trainer = settings(accumulation=len(shares))
    module = module_of(learner, reward, phases(grpo(STEPS)), LOSS, trainer)
    run(module, forever(*(one_query(group, i) for i in shares)), folder, hardware=hardware)
    return module


def trained_twice(folder: Path, hardware: HardwareConfig) -> GroupPolicyModule:
    """Train one policy by two runs of the loop."""
    first = trained(folder / "first", [0, 1], hardware)
    return trained(folder / "second", [0, 1], hardware, first.policy)


class Norms(Callback):
    """The norm of the gradient of every optimiser step."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self.steps = 0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step > self.steps and trainer.strategy.handles_gradient_accumulation:
            self.seen.append(float(trainer.model.get_global_grad_norm()))
        self.steps = trainer.global_step

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any
    ) -> None:
        if not trainer.strategy.handles_gradient_accumulation:
            assert isinstance(pl_module, GroupPolicyModule)
            self.seen.append(float(pl_module.policy.logits.grad.norm()))


def norms(folder: Path, cut: list[list[int]], hardware: HardwareConfig) -> list[float]:
    """Norms of the gradients over the groups of `uneven`, cut into micro-batches."""
    four, seen = ToyPolicy(4, 3, 3, stop=2), Norms()
    group = uneven(four)
    reward = PathReward([float(i) for i in range(27)])
    module = module_of(four, reward, phases(grpo(STEPS)), LOSS, settings(accumulation=len(cut)))
    stream = forever(*(rows(group, part) for part in cut))
    # Each query has logits of its own here, so the doctor is right that a flat one never moves.
    doctor = DoctorConfig(enabled=False)
    run(module, stream, folder, callbacks=[seen], hardware=hardware, doctor=doctor)
    return seen.seen


class BreaksOnce(ToyPolicy):
    """The third loss is not finite."""

    scored = 0

    def log_probs(self, prompt: Tensor, actions: Actions, temperature: float = 1.0) -> StepLogProbs:
        scores = super().log_probs(prompt, actions, temperature)
        self.scored += torch.is_grad_enabled()
        return StepLogProbs(scores.logp_BGT * torch.nan) if self.scored == 3 else scores


def skipped(folder: Path, rank: int, hardware: HardwareConfig) -> dict[str, Any]:
    """Learn with a loss that is broken on the first process only."""
    one = (BreaksOnce if rank == 0 else ToyPolicy)(queries=2, options=3, steps=3, stop=2)
    reward = PathReward([float(i) for i in range(27)])
    module = module_of(one, reward, phases(grpo(STEPS)), LOSS)
    seen = Weights()
    run(
        module,
        forever(one_query(ragged(policy()), rank)),
        folder,
        None,
        (),
        [seen],
        None,
        hardware=hardware,
    )
    return {"weights": [*seen.seen, logits(module)], "skipped": module.guard.skipped}


class Weights(Callback):
    """The weights before every step."""

    def __init__(self) -> None:
        self.seen: list[list[float]] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any
    ) -> None:
        assert isinstance(pl_module, GroupPolicyModule)
        self.seen.append(logits(pl_module))


def logits(module: GroupPolicyModule) -> list[float]:
    return [float(value) for value in module.policy.logits.detach().flatten()]


def main(folder: Path) -> None:
    rank = int(os.environ["RANK"])
    told: dict[str, object] = {}
    for name, chosen in STRATEGIES.items():
        hardware = HardwareConfig(devices=2, rehearse=True, **chosen)
        told[name] = logits(trained(folder / name, [rank], hardware))
        told[f"{name} broken"] = skipped(folder / f"{name}-broken", rank, hardware)
    torch.manual_seed(0)
    draw_apart(rank)
    told["drawn"] = torch.rand(8).tolist()
    found = with_others([at_most("family/check", float(rank), 0.0, "more than 0 here")])
    told["found"] = [f"{one.verdict.value} {one.cause}" for one in found]
    (folder / f"rank-{rank}.json").write_text(json.dumps(told))
    # Or a thread of gloo may outlive the interpreter, which aborts.
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
