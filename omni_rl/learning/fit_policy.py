"""Fit a policy: group-relative training, and supervised training through the same loop."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback
from transformers.utils.logging import disable_progress_bar

from core_rl.config import CurriculumConfig, EngineKind, PhaseKind, TrainerConfig
from core_rl.hardware import is_main_process, wait_for_all
from core_rl.loop.batches import shuffled_batches
from core_rl.loop.module import Batch, FreshSampler, GroupPolicyModule
from core_rl.loss_config import KLKind, LossConfig
from core_rl.objective.curriculum import Curriculum, Phase
from core_rl.objective.rewards import WeightedReward
from core_rl.run.fit import fit
from core_rl.run.run_folder import cpu_seconds
from omni_rl.data.record_files import Record
from omni_rl.doctor.gate import gate
from omni_rl.learning.supervised import solution_group
from omni_rl.policy.engine import build_sampler
from omni_rl.policy.policy import OmniPolicy, placed
from omni_rl.policy.rollout import batched
from omni_rl.settings import Settings

log = logging.getLogger(__name__)

VAL_BATCH = 16
Teach = Callable[[Phase, Sequence[Record]], Sequence[Record]]


class CpuBudget(Callback):
    """Stop once this much processor time is spent: controls get what the run got."""

    def __init__(self, seconds: float) -> None:
        self.until = cpu_seconds() + seconds

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if cpu_seconds() >= self.until:
            trainer.should_stop = True


class CpuClock(Callback):
    """Processor seconds of learning; a resumed run goes on from those of its checkpoint."""

    def __init__(self) -> None:
        self._before = 0.0
        self._began = cpu_seconds()

    @property
    def seconds(self) -> float:
        return self._before + cpu_seconds() - self._began

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self._before = state_dict["seconds"]


def learn_by_reward(
    policy: OmniPolicy,
    train: Sequence[Record],
    val: Sequence[Record],
    settings: Settings,
    reward: WeightedReward,
    folder: Path,
    seed: int,
) -> float:
    """Train by the curriculum on fresh candidates; the best policy by held-out reward stays.

    Records without a fresh candidate phase (RCE) learn from their own solutions.

    Returns:
        Processor seconds it took, with those before `trainer.resume`.

    Raises:
        ValueError: the loss needs what this policy does not return.
    """
    check_loss(settings.loss)
    clock = CpuClock()
    trainer = settings.trainer
    passes = max(1, len(train) // (trainer.batch_size * trainer.accumulation * _world(settings)))
    curriculum = Curriculum.resolve(
        settings.curriculum, phase_steps(settings.curriculum, passes), trainer.max_steps
    )
    module = GroupPolicyModule(
        policy,
        reward,
        curriculum,
        settings.loss,
        trainer,
        build_sampler(policy, settings.rollout, settings.hardware),
        settings.rollout.temperature,
        settings.rollout.max_completion,
    )

    def stream(phase: Phase) -> Iterator[Batch]:
        rank, world = module.global_rank, module.trainer.world_size
        for records in shuffled_batches(train, trainer.batch_size, seed, rank, world):
            if phase.config.kind is PhaseKind.rce:
                yield solution_group(policy, records)
            else:
                yield records

    _fit(module, stream, val, folder, settings, trainer, [clock])
    return clock.seconds


def learn_by_example(
    policy: OmniPolicy,
    train: Sequence[Record],
    val: Sequence[Record],
    settings: Settings,
    curriculum: CurriculumConfig,
    trainer: TrainerConfig,
    folder: Path,
    seed: int,
    teach: Teach = lambda phase, records: records,
    budget: CpuBudget | None = None,
) -> None:
    """Train on the records' solutions; `teach` may give them another one for each phase."""
    passes = max(1, len(train) // (trainer.batch_size * trainer.accumulation * _world(settings)))
    module = GroupPolicyModule(
        policy,
        WeightedReward.from_config(settings.reward),
        Curriculum.resolve(curriculum, phase_steps(curriculum, passes), trainer.max_steps),
        settings.loss,
        trainer,
        FreshSampler(settings.rollout.num_generations),
    )

    def stream(phase: Phase) -> Iterator[Batch]:
        rank, world = module.global_rank, module.trainer.world_size
        for records in shuffled_batches(train, trainer.batch_size, seed, rank, world):
            yield solution_group(policy, teach(phase, records))

    extra = [budget] if budget else []
    _fit(module, stream, val, folder, settings, trainer, extra)


def _fit(
    module: GroupPolicyModule,
    stream: Callable[[Phase], Iterator[Batch]],
    val: Sequence[Record],
    folder: Path,
    settings: Settings,
    trainer: TrainerConfig,
    callbacks: Sequence[Callback] = (),
) -> None:
    policy = module.policy
    assert isinstance(policy, OmniPolicy)
    name = settings.model.name
    disable_progress_bar()  # one for every checkpoint would break the training bar
    fit(
        module,
        stream,
        list(batched(val, VAL_BATCH)),
        folder,
        trainer=trainer,
        hardware=settings.hardware,
        logger=settings.logger,
        describe=lambda record: {
            "id": record.id,
            "source": record.source,
            "prompt": policy.builder.question(record),
        },
        save=lambda target, metrics: policy.save(target, name, metrics),
        callbacks=callbacks,
        doctor=settings.doctor,
        examine=gate(settings.data_mix.blank, settings.rollout.engine.kind is EngineKind.vllm),
    )
    placed(policy, settings.hardware)  # Lightning leaves what it trained on the CPU
    wait_for_all()  # the best may still be on its way to the disk
    best = folder / "checkpoints" / "best"
    if best.exists():
        policy.restore(best)
    save_final(policy, folder / "checkpoints", name)


def save_final(policy: OmniPolicy, checkpoints: Path, name: str) -> None:
    """Save the policy once, however many processes train; all of them wait for the files."""
    if is_main_process():
        policy.save(checkpoints / "final", name, {})
        shutil.rmtree(checkpoints / ".best", ignore_errors=True)
        log.info("policy saved under %s", checkpoints / "final")
    wait_for_all()


def _world(settings: Settings) -> int:
    return settings.hardware.world_size


def quiet(trainer: TrainerConfig) -> TrainerConfig:
    """The same trainer without checkpoints on the way, for controls.

    A control begins at the start, whatever the run resumed.
    """
    return replace(trainer, checkpoint_every=10**9, progress=False, resume=None)


def check_loss(loss: LossConfig) -> None:
    """Raise ValueError where the loss asks for what a policy over texts does not return."""
    if loss.kl.kind is KLKind.exact:
        raise ValueError(
            "loss.kl.kind=exact: expected an estimator, since a completion has no list of options "
            "to sum over; set loss.kl.kind=k3"
        )


def imitates(curriculum: CurriculumConfig) -> bool:
    """True where a phase learns from the records' own solutions."""
    return any(phase.kind is PhaseKind.rce for phase in curriculum.phases)


def phase_steps(curriculum: CurriculumConfig, passes: int) -> list[int]:
    """Optimiser steps an epoch of each phase, each rollout learnt from `num_iterations` times."""
    return [passes * phase.num_iterations for phase in curriculum.phases]
