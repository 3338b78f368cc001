"""The one loop: a query, G candidates, a reward each, an advantage within the group, a loss.

It follows GRPO (Shao et al. 2024, arXiv 2402.03300) and differs where practice has shown better:

- Groups whose rewards are all equal carry no signal; they leave numerator and denominator, with
  their KL.
- Old log-probs come from the sampler, so the ratio before the first update is a real check, not 1
  by construction.  The reference is taken at the start of a phase, not of the run.
- Drawing happens inside `training_step`: the prompt that was encoded for the draw is the one the
  loss differentiates through.  Rollouts used more than once come through the loader
  (`core_rl.batches`).
- RCE, reward-weighted cross entropy over candidates, is a phase of the same loop; supervised
  fine-tuning is RCE with a single candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor

from core_rl.advantages import group_advantages
from core_rl.config import PhaseKind, TrainerConfig
from core_rl.curriculum import Curriculum, Phase
from core_rl.hardware import mean_over_ranks
from core_rl.kl import KLController, kl_per_step
from core_rl.loss_config import FlatGroups, KLKind, LossConfig, RatioLevel, Reduction
from core_rl.losses import (
    count_steps,
    importance_ratio,
    loss_mask,
    policy_loss,
    rce_loss,
    rce_weights,
    reduce_steps,
)
from core_rl.mismatch import mismatch_weights
from core_rl.optim import build_optimizer, build_schedule
from core_rl.rewards import WeightedReward, rollout_stats
from core_rl.types import Actions, Group, Policy, Query, Sampler, StepLogProbs, masked_mean

Batch = Sequence[Query] | Group


class FreshSampler:
    """Draw candidates from the policy as it is now."""

    def __init__(self, num_candidates: int) -> None:
        self.num_candidates = num_candidates

    def __call__(
        self, policy: Policy, prompt: Any, queries: Sequence[Query], temperature: float
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
        policy: the model that learns; an `nn.Module` with the seams of `core_rl.types.Policy`.
        reward: judges candidates.
        curriculum: the phases, resolved to optimiser steps.
        loss: objective, advantages and KL.
        trainer: learning rate, schedule, weight decay.
        sampler: where fresh candidates come from.
        temperature: at which candidates are drawn and scored.
        max_completion: T at most, the constant of `dr_grpo`.
    """

    def __init__(
        self,
        policy: Any,
        reward: WeightedReward,
        curriculum: Curriculum,
        loss: LossConfig,
        trainer: TrainerConfig,
        sampler: Sampler,
        temperature: float = 1.0,
        max_completion: int = 1,
    ) -> None:
        super().__init__()
        self.policy = policy
        self.reward = reward
        self.curriculum = curriculum
        self.loss = loss
        self.settings = trainer
        self.sampler = sampler
        self.max_completion = max_completion
        self.controller = KLController(loss.kl, temperature)
        self.phase: Phase = curriculum.phase_at(0)
        # Kept out of the module tree: it neither trains nor belongs into a checkpoint of weights.
        self._reference: list[Any] = []
        self._restored: dict[str, Tensor] | None = None
        self.last_group: Group | None = None
        self._noted: dict[str, list[float]] = {}

    # -- phases ------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        phase = self.curriculum.phase_at(self.global_step)
        if self._restored is None or phase.start == self.global_step:
            self.begin_phase(phase)
            return
        self.phase = phase
        self._take_reference()
        for reference in self._reference:
            reference.load_state_dict(self._restored)
        self._restored = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # A resumed phase must keep the reference it began with.
        for reference in self._reference:
            checkpoint["reference"] = reference.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._restored = checkpoint.get("reference")
        # Of a run that had ended: with more steps asked for, its last batch is not the last one.
        more = self.curriculum.total_steps > checkpoint["global_step"]
        if more:
            checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"] = False

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Between two updates, never inside one: every accumulated batch sees the same weight.
        self.controller.step(self.global_step)
        phase = self.curriculum.phase_at(self.global_step)
        if phase.index != self.phase.index:
            self.begin_phase(phase)

    def begin_phase(self, phase: Phase) -> None:
        """Enter a phase: the policy as it stands becomes the reference of the KL term."""
        self.phase = phase
        self.controller.restart()
        self._take_reference()

    def _take_reference(self) -> None:
        needed = self.phase.config.kind is PhaseKind.grpo and self.loss.kl.weight > 0
        self._reference = [self.policy.frozen_copy()] if needed else []

    @property
    def references(self) -> Sequence[Any]:
        """The reference of the KL term, where the phase has one."""
        return tuple(self._reference)

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Queries are encoded on the policy's device; groups are moved whole."""
        return batch.to(device) if isinstance(batch, Group) else batch

    # -- one step ----------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if isinstance(batch, Group):
            rollout = Rollout(batch, self.policy.encode(batch.queries))
        else:
            rollout = self.roll_out(batch)
        self.last_group = rollout.group
        temperature = self._temperature_of(rollout.group)
        scores = self.policy.log_probs(rollout.prompt, rollout.group.actions, temperature)
        if self.phase.config.kind is PhaseKind.rce:
            loss = self._rce(rollout.group, scores)
        else:
            loss = self._grpo(rollout.group, scores)
        self._log_noted()
        self.log("train/loss", loss.detach(), batch_size=1)
        return loss

    def roll_out(self, queries: Sequence[Query]) -> Rollout:
        """Draw, judge and compare candidates of fresh queries."""
        rollout = self._draw(queries)
        attempts = 0
        advantage = self.loss.advantage
        while (
            advantage.flat_groups is FlatGroups.resample
            and attempts < advantage.max_resamples
            and not rollout.group.mixed_B.any()
        ):
            rollout = self._draw(queries)
            attempts += 1
        stats = rollout_stats(rollout.group.rewards, rollout.group.actions)
        self._note({**stats, "rollout/temperature": self.temperature})
        return rollout

    @property
    def temperature(self) -> float:
        """At which candidates are drawn and scored; follows KL where `loss.kl` says so."""
        return float(self.controller.temperature)

    def _temperature_of(self, group: Group) -> float:
        return self.temperature if group.temperature is None else group.temperature

    @torch.no_grad()
    def draw_for_reuse(self, batch: Batch) -> Group:
        """Draw a group that several updates will share; stored groups pass through."""
        return batch if isinstance(batch, Group) else self.roll_out(batch).group

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

    def _rce(self, group: Group, scores: StepLogProbs) -> Tensor:
        tau = self.phase.tau(self.global_step)
        weights_BG = rce_weights(
            group.rewards.total_BG.to(scores.logp_BGT.device),
            tau,
            zscore=self.phase.config.zscore_scores,
            valid_BG=group.actions.mask_BGT.any(-1),
        )
        self.log("train/tau", tau, batch_size=1)
        return rce_loss(scores.logp_BGT, group.actions.mask_BGT, weights_BG)

    def _grpo(self, group: Group, scores: StepLogProbs) -> Tensor:
        actions = group.actions
        assert actions.logp_BGT is not None, "GRPO needs the log-probs its candidates were drawn at"
        mask_BGT = loss_mask(actions, self.loss.mask_truncated)
        normalizer = group.normalizer
        if normalizer is None:
            normalizer = self.normalizer(float(count_steps(mask_BGT, group.mixed_B)))
        loss, stats = policy_loss(
            scores.logp_BGT,
            actions.logp_BGT,
            group.advantages_BGT,
            mask_BGT,
            group.mixed_B,
            self.loss,
            self.max_completion,
            normalizer,
            self._engine_weights(actions),
        )
        self._log_many({f"train/{name}": value for name, value in stats.items()})
        if self._reference:
            loss = loss + self._kl_term(group, scores, mask_BGT, normalizer)
        return loss

    def _engine_weights(self, actions: Actions) -> Tensor | None:
        if actions.engine_logp_BGT is None:
            return None
        assert actions.logp_BGT is not None
        weight_BGT, stats = mismatch_weights(
            actions.logp_BGT, actions.engine_logp_BGT, actions.mask_BGT, self.loss.mismatch
        )
        self._log_many({f"train/{name}": value for name, value in stats.items()})
        return weight_BGT

    def normalizer(self, steps: float) -> float:
        """What `dapo` divides by: learning steps a micro-batch, over all processes."""
        if self.loss.reduction is not Reduction.dapo:
            return steps
        return mean_over_ranks(steps, self.device)

    def _kl_term(
        self, group: Group, scores: StepLogProbs, mask_BGT: Tensor, normalizer: float
    ) -> Tensor:
        """Weigh the KL to the policy at the start of the phase; reduced as the policy loss is."""
        assert group.actions.logp_BGT is not None
        reference = self._reference[0]
        with torch.no_grad():
            prompt = reference.encode(group.queries)
            ref = reference.log_probs(prompt, group.actions, self._temperature_of(group))
        kl_BGT = kl_per_step(
            scores.logp_BGT,
            ref.logp_BGT,
            self.loss.kl.kind,
            scores.all_logp_BGTK,
            ref.all_logp_BGTK,
            mask_BGT,
            # With the ratio's graph the estimators have the gradient of KL(pi || ref).
            importance_ratio(scores.logp_BGT, group.actions.logp_BGT, mask_BGT, RatioLevel.token)
            if self.loss.kl.kind in (KLKind.k1, KLKind.k3)
            else None,
        )
        learning_BGT = mask_BGT & group.mixed_B.view(-1, 1, 1)
        measured = masked_mean(kl_BGT.detach(), learning_BGT)
        self.controller.observe(measured, learning_BGT.any().float())
        weight = self.controller.weight.clone()
        self._log_many({"train/kl": measured, "train/kl_weight": weight})
        reduced = reduce_steps(
            kl_BGT,
            mask_BGT,
            group.mixed_B,
            self.loss.reduction,
            self.max_completion,
            normalizer,
        )
        return weight * reduced

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        norms = [p.grad.norm() for p in self.policy.parameters() if p.grad is not None]
        if norms:
            self.log("train/grad_norm", torch.stack(norms).norm(), prog_bar=False, batch_size=1)

    # -- held-out reward ---------------------------------------------------------------------

    def validation_step(self, batch: Sequence[Query], batch_idx: int) -> None:
        """Reward the most probable candidate of held-out queries."""
        prompt = self.policy.encode(batch)
        actions = self.policy.sample(prompt, 1, temperature=0.0)
        rewards = self.reward.score(batch, actions)
        size = len(batch)
        self.log("val/reward", rewards.total_BG.nanmean(), batch_size=size, sync_dist=True)
        for name, values_BG in zip(rewards.names, rewards.values_RBG, strict=True):
            judged = values_BG[~values_BG.isnan()]
            if judged.numel():
                self.log(f"val/{name}", judged.mean(), batch_size=judged.numel(), sync_dist=True)

    # -- logging and optimiser ---------------------------------------------------------------

    def _note(self, values: dict[str, float]) -> None:
        """Keep numbers for the next training step: a loader that draws cannot log."""
        for name, value in values.items():
            self._noted.setdefault(name, []).append(value)

    def _log_noted(self) -> None:
        """Log what was noted since the last training step, as means over its rollouts."""
        shown = {f"reward/{name}" for name in (*self.reward.functions, "total")}
        for name, values in self._noted.items():
            mean = torch.tensor(values).nanmean()
            self.log(name, mean, prog_bar=name in shown, batch_size=1)
        self._noted.clear()

    def _log_many(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            self.log(name, value, batch_size=1)

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.policy, self.settings.lr, self.settings.weight_decay)
        schedule = build_schedule(
            optimizer, self.curriculum, self.settings.warmup, self.settings.schedule
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step", "name": "train/lr"},
        }
