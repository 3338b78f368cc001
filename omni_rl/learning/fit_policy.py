"""Train a policy by reward, or on solutions by the same loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from transformers.utils.logging import disable_progress_bar

from core_rl.config import CurriculumConfig, EngineKind, PhaseKind, TrainerConfig
from core_rl.loop.batches import shuffled_batches
from core_rl.loop.continuation import Later
from core_rl.loop.module import FreshSampler, GroupPolicyModule
from core_rl.loss_config import KLKind, LossConfig
from core_rl.objective.curriculum import Curriculum, Phase
from core_rl.objective.rewards import WeightedReward
from core_rl.run.fit import Hooks, fit, keep_chosen
from core_rl.run.run_folder import cpu_seconds
from core_rl.types import Batch, Group, RewardTable
from omni_rl.data.record import Record, media_of
from omni_rl.data.splits import Splits
from omni_rl.doctor.gate import gate
from omni_rl.policy.engine import build_sampler
from omni_rl.policy.policy import OmniPolicy, placed
from omni_rl.policy.rollout import batched
from omni_rl.settings import Settings

VAL_BATCH = 16
Teach = Callable[[Phase, Sequence[Record]], Sequence[Record]]


class CpuBudget(Callback):
    """Stop once this much processor time is spent."""

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


@dataclass(frozen=True)
class Spent:
    """Processor seconds and optimiser steps of training, including those before a resume."""

    seconds: float
    steps: int


@dataclass(frozen=True)
class Training:
    """The training of one policy.

    Attributes:
        policy: changed in place.
        settings: of the run.
        splits: `train` is learned from, `val` selects the best policy.
        folder: receives checkpoints, samples and logs.
        seed: of the order of the records.
    """

    policy: OmniPolicy
    settings: Settings
    splits: Splits
    folder: Path
    seed: int

    def by_reward(self, reward: WeightedReward) -> Spent:
        """Train by the curriculum on fresh candidates; RCE phases take the records' solutions.

        Afterwards the policy is that of the last step; `keep_best` restores the best.

        Raises:
            ValueError: the loss needs what this policy does not return.
        """
        check_loss(self.settings.loss)
        rollout = self.settings.rollout
        module = GroupPolicyModule(
            self.policy,
            reward,
            self._curriculum(),
            self.settings,
            build_sampler(self.policy, rollout),
            rollout.max_completion,
        )

        def batch(phase: Phase, records: Sequence[Record]) -> Batch:
            imitated = phase.config.kind is PhaseKind.rce
            return solution_group(self.policy, records) if imitated else records

        return self._fit(module, batch)

    def by_example(
        self, teach: Teach = lambda phase, records: records, budget: float = math.inf
    ) -> Spent:
        """Train on the solutions of the records, or of those that `teach` puts in their place.

        Args:
            teach: replaces the records of a batch.
            budget: processor seconds after which training stops.
        """
        settings = self.settings
        module = GroupPolicyModule(
            self.policy,
            WeightedReward.from_config(settings.reward),
            self._curriculum(),
            replace(settings, rollout=replace(settings.rollout, temperature=1.0)),
            FreshSampler(settings.rollout.num_generations),
        )

        def batch(phase: Phase, records: Sequence[Record]) -> Batch:
            return solution_group(self.policy, teach(phase, records))

        return self._fit(module, batch, CpuBudget(budget))

    def keep_best(self) -> None:
        """Restore the best policy by held-out reward, where one was chosen, and save it."""
        keep_chosen(self.folder, self._save, self.policy.restore)

    def _save(self, target: Path, metrics: dict[str, float]) -> None:
        self.policy.save(target, self.settings.model.name, metrics)

    def _curriculum(self) -> Curriculum:
        trainer, phases = self.settings.trainer, self.settings.curriculum
        per_step = trainer.batch_size * trainer.accumulation * self.settings.hardware.world_size
        passes = max(1, len(self.splits.train) // per_step)
        return Curriculum.resolve(phases, phase_steps(phases, passes), trainer.max_steps)

    def _fit(
        self,
        module: GroupPolicyModule,
        batch: Callable[[Phase, Sequence[Record]], Batch],
        *callbacks: Callback,
    ) -> Spent:
        settings, policy = self.settings, self.policy
        clock = CpuClock()

        def stream(phase: Phase) -> Iterator[Later]:
            rank, world = module.global_rank, module.trainer.world_size
            size = settings.trainer.batch_size
            for records in shuffled_batches(self.splits.train, size, self.seed, rank, world):
                yield Later(records, partial(batch, phase, records))

        disable_progress_bar()  # one for every checkpoint would break the training bar
        hooks = Hooks(
            self._save,
            describe=lambda record: {
                "id": record.id,
                "source": record.source,
                "prompt": policy.builder.question(record),
                "answer": record.answer,
                "media": ";".join(map(str, (p for ps in media_of(record).values() for p in ps))),
            },
            callbacks=[clock, *callbacks],
            examine=gate(settings.data_mix.blank, settings.rollout.engine.kind is EngineKind.vllm),
        )
        held_out = list(batched(self.splits.val, VAL_BATCH))
        runner = fit(module, stream, held_out, self.folder, hooks)
        placed(policy, settings.hardware)  # Lightning leaves what it trained on the CPU
        return Spent(clock.seconds, runner.global_step)


def solution_group(policy: OmniPolicy, records: Sequence[Record]) -> Group:
    """Make a group of one candidate a record, its solution with weight 1: RCE is supervision then.

    Raises:
        ValueError: a record has no solution, or one with a token that is never drawn.
    """
    for record in records:
        if not record.solution:
            raise ValueError(
                f"{record.where}: no solution to imitate; supervised training needs one"
            )
        never = policy.never_drawn(record.solution)
        if never:
            raise ValueError(
                f"{record.where}: its solution holds {never[0]}, which the policy can never draw: "
                "the loss would be infinite; take it out"
            )
    actions = policy.actions_from_texts([[record.solution] for record in records])
    shape = actions.mask_BGT.shape[:2]
    return Group(
        queries=records,
        actions=actions,
        rewards=RewardTable((), torch.zeros(0, *shape), torch.ones(shape)),
        advantages_BGT=torch.zeros(actions.mask_BGT.shape, device=policy.device),
        mixed_B=torch.ones(shape[0], dtype=torch.bool, device=policy.device),
    )


def quiet(trainer: TrainerConfig) -> TrainerConfig:
    """Return the trainer of a control: without intermediate checkpoints and never resumed."""
    return replace(trainer, checkpoint_every=0, progress=False, resume=None)


def check_batch(records: Sequence[Record], settings: Settings) -> None:
    """Raise ValueError if the records do not fill one batch on every device."""
    size, world = settings.trainer.batch_size, settings.hardware.world_size
    if len(records) < size * world:
        raise ValueError(
            f"{len(records)} training records cannot fill a batch of {size} on {world} devices: "
            "expected more records (data_mix.size), or a smaller trainer.batch_size"
        )


def check_loss(loss: LossConfig) -> None:
    """Raise ValueError if the loss needs what a policy over texts does not return."""
    if loss.kl.kind is KLKind.exact:
        raise ValueError(
            "loss.kl.kind=exact: expected an estimator, since a completion has no list of options "
            "to sum over; set loss.kl.kind=k3"
        )


def imitates(curriculum: CurriculumConfig) -> bool:
    """Whether a phase learns from the records' own solutions."""
    return any(phase.kind is PhaseKind.rce for phase in curriculum.phases)


def phase_steps(curriculum: CurriculumConfig, passes: int) -> list[int]:
    """Optimiser steps of an epoch of each phase; a rollout is used `num_iterations` times."""
    return [passes * phase.num_iterations for phase in curriculum.phases]
