"""The doctor of a run: a gate before the first step of each phase, cheap checks on the way.

A run whose completions are garbled, whose reward is constant or whose weights do not change costs
as much as one that learns.  The gate checks what can be checked before the first step.  The rest is
checked at the first two steps and then every `doctor.every` steps, on a few candidates that were
drawn anyway.  The random state is not touched, so a run is the same with and without the doctor.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from core_rl.config import DoctorConfig, OnFailure, PhaseKind
from core_rl.doctor.agreement import (
    kl_findings,
    ratio_findings,
    reuse_findings,
    rows_of,
)
from core_rl.doctor.degeneration import RewardWatch, degeneration_findings
from core_rl.doctor.direction import advantage_findings, direction_findings, reward_findings
from core_rl.doctor.findings import (
    Finding,
    UnhealthyError,
    Verdict,
    equals,
    failed,
    health_metrics,
)
from core_rl.doctor.report import Round, log_round, round_of, write_rounds
from core_rl.doctor.weights import (
    WeightSample,
    change_findings,
    finite_findings,
    gradient_findings,
    optimizer_findings,
    rate_finding,
    reference_findings,
    sample_weights,
    sample_without_gradients,
    stays_findings,
    weight_findings,
    weights_finite,
)
from core_rl.hardware import from_all, own_randomness, process_rank
from core_rl.loop.module import GroupPolicyModule
from core_rl.loop.optim import MasterAdamW
from core_rl.objective.losses import learning_steps
from core_rl.types import Batch, Describe, Group, Query, RewardTable

log = logging.getLogger(__name__)

# A pipeline's own check of a policy: (policy, queries, temperature, limits) -> findings.
Examine = Callable[[Any, Sequence[Query], float, DoctorConfig], list[Finding]]

EARLY_STEPS = 2  # a sampler without the new weights shows after the first update
REMEMBERED = 64  # rollouts whose old log-probs are kept, to be compared when they are reused
KEPT_ROUNDS = 20  # unhealthy rounds in health.json


class Doctor(Callback):
    """Check a run, log findings under `health/`, keep them in `health.json`.

    Loss and gradient norm are checked at every step.

    Args:
        limits: when to look, at what, and what to do about it.
        folder: of the run.
        examine: check of the policy at the gate.
        spare: more queries for the gate, where a batch has too few.
        describe: columns that name a query; a `prompt` among them says which language to expect.

    Raises:
        UnhealthyError: a check failed and `doctor.on_failure` says to stop there.
    """

    def __init__(
        self,
        limits: DoctorConfig,
        folder: Path,
        examine: Examine,
        spare: Sequence[Query] = (),
        describe: Describe = lambda query: {},
    ) -> None:
        self.limits = limits
        self.folder = folder
        self.spare = list(spare)
        self.examine = examine
        self.describe = describe
        self.rewards = RewardWatch(limits)
        self._phase = -1  # the last that passed the gate
        self._step = 0  # optimiser steps done when last looked at
        self._began = 0  # the step at which the phase, or a resumed run, began
        self._due = True  # the first steps of a phase are always looked at
        self._early = True  # little was spent yet, so a failure stops the run
        self._drawn = True  # candidates were drawn and judged inside this step
        self._has_signal = False
        self._signals = 0  # optimiser steps so far that had a signal
        self._signals_before = 0  # those of them before the present phase
        self._found: list[Finding] = []
        self._before: WeightSample | None = None
        # Rollouts seen: their rewards (which stay one object), old log-probs, signals until then.
        self._seen: dict[int, tuple[RewardTable, Tensor, int]] = {}
        self._rounds: list[Round] = []

    # -- before the first step ---------------------------------------------------------------

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, GroupPolicyModule)
        self._drawn = not isinstance(batch, Group)
        # The module enters a phase after this hook.
        phase = pl_module.curriculum.phase_at(trainer.global_step)
        if phase.index == self._phase:
            return
        self._phase = phase.index
        self._step = self._began = trainer.global_step
        self._due = self._early = True
        with _as_in_training(trainer, pl_module):
            found = self._gate(trainer, pl_module, batch, phase.config.kind)
        self._report(trainer, found)

    def _gate(
        self, trainer: L.Trainer, module: GroupPolicyModule, batch: Batch, kind: PhaseKind
    ) -> list[Finding]:
        """Check all that needs no update; draw from the policy only where that is safe."""
        found = weight_findings(module.policy)
        for optimizer in trainer.optimizers:
            found += (
                [rate_finding(optimizer)]
                if _is_sharded(optimizer)
                else optimizer_findings(module.policy, optimizer)
            )
        for reference in module.references:
            found += reference_findings(module.policy, reference)
        if failed(found) or kind is not PhaseKind.grpo:
            return found
        own = batch.queries if isinstance(batch, Group) else batch
        queries = [*own, *self.spare][: self.limits.queries]
        try:
            found += self.examine(module.policy, queries, module.temperature, self.limits)
            return list({one.check: one for one in found}.values())  # some checks run twice
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
            log.exception("drawing from the policy or scoring what it drew raised")
            cause = f"drawing or scoring raises {type(error).__name__}: {error}"
            return [*found, equals("gate/runs", 0, 1, cause, "see train.log")]

    # -- on the way --------------------------------------------------------------------------

    def on_before_backward(
        self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor
    ) -> None:
        assert isinstance(pl_module, GroupPolicyModule)
        group = pl_module.last_group
        if group is None:
            return
        by_reward = pl_module.phase.config.kind is PhaseKind.grpo
        if pl_module.global_step == pl_module.phase.start:
            self._signals_before = self._signals
        self._has_signal |= bool(group.mixed_B.any()) or not by_reward
        before = self._seen.get(id(group.rewards))
        fresh = not group.learned and (before is None or before[0] is not group.rewards)
        if fresh and by_reward and group.actions.num_candidates > 1:
            self.rewards.add(group.rewards, group.mixed_B)
        if self._due and not self._found and by_reward:
            with _as_in_training(trainer, pl_module):
                self._found += self._of_candidates(pl_module, group, before)
        if fresh and group.actions.logp_BGT is not None:
            while len(self._seen) >= REMEMBERED:
                del self._seen[next(iter(self._seen))]
            old = (group.rewards, group.actions.logp_BGT.clone(), self._signals)
            self._seen[id(group.rewards)] = old

    def _of_candidates(
        self,
        module: GroupPolicyModule,
        group: Group,
        before: tuple[RewardTable, Tensor, int] | None,
    ) -> list[Finding]:
        """Check the candidates that a step is about to learn from."""
        prompts = [str(self.describe(query).get("prompt", "")) for query in group.queries[:2]]
        found = degeneration_findings(group.actions, self.limits, prompts)
        temperature = module.temperature_of(group)
        chosen = slice(0, 1), slice(0, self.limits.candidates)
        few, queries = rows_of(group.actions, *chosen), group.queries[:1]
        found += advantage_findings(group, has_spans=bool(module.reward.spans))
        if group.learned:  # old, and nothing is known of them from before the resume
            pass
        elif before is None or before[0] is not group.rewards:
            # Rollouts drawn for several steps at once were drawn before the steps in between.
            starts = module.global_step == module.phase.start
            if starts or module.phase.config.minibatches == 1:
                found += ratio_findings(module.policy, queries, few, temperature)
            if self._drawn and self._early and self._step == module.phase.start:
                found += reward_findings(module.reward, group)
        elif self._signals > before[2]:
            first = before[1][chosen]
            found += reuse_findings(module.policy, queries, few, first, temperature)
        for reference in module.references:
            if module.global_step == module.phase.start:
                found += reference_findings(module.policy, reference)
                found += kl_findings(module.policy, reference, queries, few, temperature)
            elif self._signals > self._signals_before:
                found += stays_findings(module.policy, reference)
        return found

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        assert isinstance(pl_module, GroupPolicyModule)
        if not self._due:
            return
        rate = rate_finding(optimizer)
        self._found.append(rate)
        policy = pl_module.policy
        if not _is_sharded(optimizer):
            self._found += gradient_findings(policy, self._has_signal)
            masters = optimizer.masters if isinstance(optimizer, MasterAdamW) else None
            self._before = sample_weights(policy, masters)
        elif self._has_signal:
            self._before = sample_without_gradients(policy)
        if failed([rate]):  # which is the reason why no weight changes
            self._before = None

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, GroupPolicyModule)
        if trainer.global_step == self._step:  # more batches to accumulate
            return
        self._step = trainer.global_step
        self._signals += self._has_signal
        self._has_signal = False
        finite = finite_findings(trainer.callback_metrics, str(trainer.precision))
        if failed(finite) and not self._due:
            self._report(trainer, [*finite, weights_finite(pl_module.policy)])
        if self._due:
            found, self._found = [*finite, *self._found], []
            if self._before is not None:
                found += change_findings(self._before)
                self._before = None
            found += self._of_the_step(trainer, pl_module)
            found += weight_findings(pl_module.policy)
            found += self.rewards.findings()
            if self.rewards.groups >= self.limits.flat_groups:
                self.rewards.clear()
            self._report(trainer, found)
        self._early = self._step - self._began < EARLY_STEPS
        self._due = self._early or (self._step + 1) % self.limits.every == 0

    def _of_the_step(self, trainer: L.Trainer, module: GroupPolicyModule) -> list[Finding]:
        """Check the direction of the first update, where momentum and KL have no effect yet."""
        group = module.last_group
        if (
            group is None
            or self._step != 1
            or trainer.accumulate_grad_batches > 1
            or module.phase.config.kind is not PhaseKind.grpo
        ):
            return []
        temperature = module.temperature_of(group)
        with _as_in_training(trainer, module):
            mask_BGT = learning_steps(group.actions, group.mixed_B, module.loss.mask_truncated)
            return direction_findings(module.policy, group, mask_BGT, temperature)

    # -- reporting ---------------------------------------------------------------------------

    def _report(self, trainer: L.Trainer, found: list[Finding]) -> None:
        step, found = trainer.global_step, with_others(found)
        for logger in trainer.loggers:
            logger.log_metrics(health_metrics(found), step)
        if trainer.is_global_zero:
            self._keep(step, found)
            log_round(step, found)
        # Nothing more can be learned with weights that are not finite, however late in a run.
        fatal = failed(one for one in found if one.check == "weights/not_finite")
        stops = self.limits.on_failure is OnFailure.abort or (
            self.limits.on_failure is OnFailure.auto and (self._early or fatal)
        )
        if stops and failed(found):  # on all processes alike
            raise UnhealthyError(found)

    def _keep(self, step: int, found: Sequence[Finding]) -> None:
        """Write `health.json`: the first rounds, the last, and the newest that failed."""
        self._rounds.append(round_of(step, found))
        first, rest = self._rounds[: 1 + EARLY_STEPS], self._rounds[1 + EARLY_STEPS :]
        sick = [one for one in rest[:-1] if not one["healthy"]]
        self._rounds = [*first, *sick[-KEPT_ROUNDS:], *rest[-1:]]
        write_rounds(self.folder, self._rounds)


def with_others(found: Sequence[Finding]) -> list[Finding]:
    """Add what is wrong on other processes of the run, with their number; all must call this."""
    parts = from_all([one for one in found if one.verdict in (Verdict.fail, Verdict.warn)])
    others = [
        replace(one, cause=f"process {rank}: {one.cause}")
        for rank, part in enumerate(parts)
        for one in part
        if rank != process_rank()
    ]
    return [*found, *others]


@contextmanager
def _as_in_training(trainer: L.Trainer, module: L.LightningModule) -> Iterator[None]:
    """The precision of a training step, with random numbers apart from the run's."""
    with own_randomness(module.device), trainer.precision_plugin.train_step_context():
        yield


def _is_sharded(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether an optimiser holds flat shards in place of the module's own tensors."""
    return type(optimizer).__module__.startswith("deepspeed")
