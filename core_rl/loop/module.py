"""The one loop: a query, G candidates, a reward each, an advantage within the group, a loss.

It follows GRPO (Shao et al. 2024, arXiv 2402.03300) and differs where practice has shown better:

- Groups whose rewards are all equal carry no signal.  They are left out of numerator and
  denominator, and so is their KL.  The denominator counts the whole optimiser step
  (`core_rl.loop.denominator`).
- Old log-probs come from the sampler, so that the ratio before the first update can be checked.
  The reference is taken at the start of each phase.
- Candidates are drawn inside `training_step`: the loss differentiates through the prompt that was
  encoded for drawing.  Those that are used more than once come through `core_rl.loop.batches`.
- RCE (reward-weighted cross entropy over candidates) is a phase of the same loop.  Supervised
  fine-tuning is RCE with one candidate.

The loop is here; what a phase minimises is `core_rl.objective.phase_loss`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import Tensor

from core_rl.config import PhaseKind
from core_rl.hardware import draw_apart, sum_over_ranks
from core_rl.loop.continuation import Continuation, at_a_boundary
from core_rl.loop.denominator import (
    Denominator,
    restore_loss_scale,
    scale_gradients,
    scale_sharded_gradients,
)
from core_rl.loop.optim import build_optimizer, build_schedule
from core_rl.loop.step_guard import StepGuard
from core_rl.loop.unreached import zero_gradients
from core_rl.loss_config import FlatGroups
from core_rl.objective.advantages import group_advantages
from core_rl.objective.curriculum import Curriculum, Phase
from core_rl.objective.kl import KLController
from core_rl.objective.phase_loss import PhaseLoss
from core_rl.objective.rewards import WeightedReward, rollout_stats
from core_rl.settings import LoopSettings
from core_rl.types import Actions, Batch, Group, Policy, Prompt, Query, Reference, Sampler


class FreshSampler:
    """Draw candidates from the policy as it is now."""

    def __init__(self, num_candidates: int) -> None:
        self.num_candidates = num_candidates

    def __call__(
        self, policy: Policy[Prompt], prompt: Prompt, queries: Sequence[Query], temperature: float
    ) -> Actions:
        return policy.sample(prompt, self.num_candidates, temperature)


@dataclass(frozen=True)
class Rollout:
    """A group with the prompt it was drawn under."""

    group: Group
    prompt: Any


class GroupPolicyModule(L.LightningModule):
    """RCE and GRPO phases over stored or sampled candidates, with automatic optimisation.

    Args:
        policy: the model that learns.
        reward: judges candidates.
        curriculum: the phases, resolved to optimiser steps.
        settings: the loss, the trainer and the temperature at which candidates are drawn.
        sampler: where fresh candidates come from.
        max_completion: T at most, the constant of `dr_grpo`.
    """

    def __init__(
        self,
        policy: Policy,
        reward: WeightedReward,
        curriculum: Curriculum,
        settings: LoopSettings,
        sampler: Sampler,
        max_completion: int = 1,
    ) -> None:
        super().__init__()
        self.policy = policy
        self.reward = reward
        self.curriculum = curriculum
        self.settings = settings
        self.loss = settings.loss
        self.sampler = sampler
        self.controller = KLController(self.loss.kl, settings.rollout.temperature)
        self.phase_loss = PhaseLoss(self.loss, self.controller, max_completion)
        self.denominator = Denominator()
        self.continuation = Continuation()
        self.guard = StepGuard(settings.trainer.on_nan, settings.hardware.scales_loss)
        self.phase: Phase = curriculum.phase_at(0)
        self._restored: dict[str, Tensor] | None = None
        self.last_group: Group | None = None
        self._noted: dict[str, list[float]] = {}  # since the last optimiser step
        self._logged: dict[str, float] = {}  # by training steps; Lightning repeats old values
        self._stepped = 0  # optimiser steps made when a micro-batch last ended one
        self._held_out: list[Tensor] = []  # of each batch: sums and counts of what was judged, 2R

    # -- phases ------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        draw_apart(self.global_rank)

    def on_train_start(self) -> None:
        self._stepped = self.global_step
        phase = self.curriculum.phase_at(self.global_step)
        if self._restored is None or phase.start == self.global_step:
            self.controller.step(self.global_step)  # on what the step before a resume observed
            self.begin_phase(phase)
            return
        self.phase = phase
        self._take_reference()
        for reference in self.references:
            reference.load_state_dict(self._restored)
        self._restored = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # A resumed phase keeps the reference it began with.
        for reference in self.references:
            checkpoint["reference"] = reference.state_dict()
        checkpoint |= {"skipped": self.guard.skipped, "logged": self._logged}
        self.continuation.save(checkpoint, self.controller.seen)
        at_a_boundary(checkpoint["loops"], self.global_step * self.settings.trainer.accumulation)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._restored = checkpoint.get("reference")
        self.guard.skipped = checkpoint.get("skipped", 0)
        self._logged = dict(checkpoint.get("logged", {}))
        seen = self.continuation.load(checkpoint, self.global_rank, self.trainer.world_size)
        if seen is not None:
            self.controller.seen = seen

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Between two updates only, so that all accumulated batches use the same weight.
        self.controller.step(self.global_step)
        phase = self.curriculum.phase_at(self.global_step)
        if phase.index != self.phase.index:
            self.begin_phase(phase)

    def begin_phase(self, phase: Phase) -> None:
        """Enter a phase; a copy of the policy becomes the reference of the KL term."""
        self.phase = phase
        self.controller.restart()
        self._take_reference()

    def _take_reference(self) -> None:
        needed = self.phase.config.kind is PhaseKind.grpo and self.loss.kl.weight > 0
        self.phase_loss.reference = self.policy.frozen_copy() if needed else None

    @property
    def references(self) -> Sequence[Reference]:
        """The reference of the KL term, where the phase has one."""
        return () if self.phase_loss.reference is None else (self.phase_loss.reference,)

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Queries are encoded on the policy's device; groups are moved whole."""
        return batch.to(device) if isinstance(batch, Group) else batch

    # -- one step ----------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        zero = zero_gradients(self.policy.sometimes_unread())  # before all that it outlasts
        # Get G candidates of each query with rewards and advantages: stored ones, or fresh ones.
        if isinstance(batch, Group):
            rollout = Rollout(batch, self.policy.encode(batch.queries))
        else:
            rollout = self.roll_out(batch)
        self.last_group = rollout.group

        # Score the candidates under the policy, with a graph through the encoded prompt.
        temperature = self.temperature_of(rollout.group)
        scores = self.policy.log_probs(rollout.prompt, rollout.group.actions, temperature)

        # Sum the loss over what learns: RCE raises what is rewarded, GRPO follows the advantages.
        if self.phase.config.kind is PhaseKind.rce:
            found = self.phase_loss.rce(rollout.group, scores, self.phase, self.global_step)
        else:
            at_one = None
            if self.phase_loss.measures_at_one(temperature):
                with torch.no_grad():
                    at_one = self.policy.log_probs(rollout.prompt, rollout.group.actions)
            found = self.phase_loss.grpo(rollout.group, scores, temperature, at_one)
        # Divide by the units of the optimiser step, and log.
        total, units, stats = found
        loss = total / self.denominator.add(float(units), self.device)
        stats |= {"loss": loss.item()}
        self._note({f"train/{name}": float(value) for name, value in stats.items()})
        self._log_noted()
        return self.guard.spread(loss, scores.logp_BGT) + zero

    def roll_out(self, queries: Sequence[Query]) -> Rollout:
        """Draw, judge and compare candidates of fresh queries."""
        advantage = self.loss.advantage
        resamples = advantage.flat_groups is FlatGroups.resample
        for _ in range(1 + advantage.max_resamples * resamples):
            rollout = self._draw(queries)
            if rollout.group.mixed_B.any():
                break
        stats = rollout_stats(rollout.group.rewards, rollout.group.actions)
        self._note({**stats, "rollout/temperature": self.temperature})
        return rollout

    @property
    def temperature(self) -> float:
        """Temperature for drawing and scoring; the KL controller may change it."""
        return float(self.controller.temperature)

    def temperature_of(self, group: Group) -> float:
        """Temperature for scoring a group: the one at which it was drawn."""
        return self.temperature if group.temperature is None else group.temperature

    @torch.no_grad()
    def draw_for_reuse(self, batch: Batch) -> Group:
        """Draw a group that several updates will share; stored groups pass through.

        The loader calls this outside Lightning's step, whose precision is set here.
        """
        if isinstance(batch, Group):
            return batch
        with self.trainer.precision_plugin.train_step_context():
            return self.roll_out(batch).group

    def _draw(self, queries: Sequence[Query]) -> Rollout:
        prompt = self.policy.encode(queries)
        actions = self.sampler(self.policy, prompt, queries, self.temperature)
        return Rollout(self.judge(queries, actions), prompt)

    def judge(self, queries: Sequence[Query], actions: Actions) -> Group:
        """Reward candidates and turn rewards into advantages."""
        rewards = self.reward.score(queries, actions)
        advantages_BGT, mixed_B, stats = group_advantages(
            rewards, self.reward.weights, self.loss.advantage, self.reward.spans, actions
        )
        self._note({f"rollout/{name}": value for name, value in stats.items()})
        return Group(
            queries, actions, rewards, advantages_BGT, mixed_B, temperature=self.temperature
        )

    def on_after_backward(self) -> None:
        micro_batches = self.trainer.accumulate_grad_batches
        if self.denominator.micro_batches < micro_batches:
            return
        factor = self.denominator.correction(self.device)
        if isinstance(self.trainer.strategy, DeepSpeedStrategy):
            # DeepSpeed divides by the number of micro-batches once more than Lightning has.
            scale_sharded_gradients(self.trainer.optimizers[0], factor * micro_batches)
        elif factor != 1:
            scale_gradients(self.policy.parameters(), factor)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        norms = [p.grad.norm() for p in self.policy.parameters() if p.grad is not None]
        norm = torch.stack(norms).norm() if norms else torch.zeros(())
        sharded = isinstance(self.trainer.strategy, DeepSpeedStrategy)
        if not sharded:
            self.log("train/grad_norm", norm, batch_size=1)
        self.guard.before_step(optimizer, None if sharded else norm, self.policy)

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        if self.global_step == self._stepped:  # more batches to accumulate
            return
        self._stepped, sharded = self.global_step, None
        self._noted.clear()
        if isinstance(self.trainer.strategy, DeepSpeedStrategy):  # its gradients are in shards
            norm = self.trainer.strategy.deepspeed_engine.get_global_grad_norm()
            self.log("train/grad_norm", float(norm), batch_size=1)
            sharded = self.trainer.optimizers[0]
            restore_loss_scale(sharded)
        self.guard.after_step(self.global_step, sharded)
        self.log("train/skipped", float(self.guard.skipped), batch_size=1)
        # Free the gradients before the next candidates are drawn and scored.
        for optimizer in self.trainer.optimizers:
            optimizer.zero_grad()

    # -- held-out reward ---------------------------------------------------------------------

    def validation_step(self, batch: Sequence[Query], batch_idx: int) -> None:
        """Reward the most probable candidate of held-out queries."""
        prompt = self.policy.encode(batch)
        actions = self.policy.sample(prompt, 1, temperature=0.0)
        values_RN = self.reward.score(batch, actions).values_RBG.flatten(1)
        self._held_out.append(
            torch.stack([values_RN.nansum(1), (~values_RN.isnan()).float().sum(1)])
        )

    def on_validation_epoch_end(self) -> None:
        """Log the mean of each reward over what it judged, and their weighted sum.

        Missing judgements are left out: NaN where a function judged nothing.  The sum is over the
        weighted functions that judged, NaN without any.
        """
        sums = torch.stack(self._held_out).sum(0).to(self.device)
        self._held_out.clear()
        total_R, count_R = self.trainer.strategy.reduce(sums, reduce_op="sum")
        means = dict(zip(self.reward.functions, (total_R / count_R).tolist(), strict=True))
        parts = [self.reward.weights[name] * means[name] for name in self.reward.judging(means)]
        means["reward"] = sum(parts) if parts else math.nan
        for name, mean in means.items():  # the same on every process: they are averaged
            self.log(f"val/{name}", mean, sync_dist=True)

    # -- logging and optimiser ---------------------------------------------------------------

    def _note(self, values: dict[str, float]) -> None:
        """Keep numbers for the next training step; the loader draws too and cannot log."""
        for name, value in values.items():
            self._noted.setdefault(name, []).append(value)

    def _log_noted(self) -> None:
        """Log what was noted since the last optimiser step, as means over micro-batches and ranks.

        NaN rewards (judged nowhere) are left out of the mean; a NaN loss is logged as NaN.  All
        ranks note the same names.
        """
        known = [
            [one for one in values if name.startswith("train/") or not math.isnan(one)]
            for name, values in self._noted.items()
        ]
        means_N2 = torch.tensor([(fmean(some), 1.0) if some else (0.0, 0.0) for some in known])
        sums_N2 = sum_over_ranks(means_N2.to(self.device))
        means = (sums_N2[:, 0] / sums_N2[:, 1]).tolist()
        self._logged |= zip(self._noted, means, strict=True)
        shown = {f"reward/{name}" for name in (*self.reward.functions, "total")}
        for name, value in self._logged.items():
            self.log(name, value, prog_bar=name in shown, batch_size=1)

    def configure_optimizers(self) -> Any:
        trainer = self.settings.trainer
        masters = not isinstance(self.trainer.strategy, DeepSpeedStrategy)
        optimizer = build_optimizer(self.policy, trainer.lr, trainer.weight_decay, masters=masters)
        schedule = build_schedule(optimizer, self.curriculum, trainer.warmup, trainer.schedule)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step", "name": "train/lr"},
        }
