"""Policies, samplers and loops with one fault each, over the toy policy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from core_rl.loop.module import FreshSampler, GroupPolicyModule
from core_rl.types import Actions, Batch, Group, Policy, StepLogProbs
from tests.core_rl.toy import ToyPolicy, module_of


class Warmless(ToyPolicy):
    """Scores without the temperature."""

    def log_probs(self, prompt: Tensor, actions: Actions, temperature: float = 1.0) -> StepLogProbs:
        return super().log_probs(prompt, actions, 1.0)


class Noisy(ToyPolicy):
    """Dropout in scoring."""

    def log_probs(self, prompt: Tensor, actions: Actions, temperature: float = 1.0) -> StepLogProbs:
        scores = super().log_probs(prompt, actions, temperature)
        return StepLogProbs(scores.logp_BGT + 0.05 * torch.randn_like(scores.logp_BGT))


class FirstQueryOnly(ToyPolicy):
    """The first query of a batch stands for all."""

    def encode(self, queries: Sequence[int]) -> Tensor:
        return super().encode([queries[0]] * len(queries))


class Aliased(ToyPolicy):
    """The reference is the policy."""

    def frozen_copy(self) -> ToyPolicy:
        return self


class OtherReference(ToyPolicy):
    """The reference comes from elsewhere."""

    def frozen_copy(self) -> ToyPolicy:
        return ToyPolicy(*self.logits.shape[::2], seed=99).requires_grad_(False)


class Mirrors(ToyPolicy):
    """A reference with weights of its own, taken from the policy before every use."""

    followed: list[ToyPolicy]

    def frozen_copy(self) -> ToyPolicy:
        reference = copy.deepcopy(self).requires_grad_(False)
        reference.followed = [self]
        return reference

    def encode(self, queries: Sequence[int]) -> Tensor:
        for policy in getattr(self, "followed", []):
            self.load_state_dict(policy.state_dict())
        return super().encode(queries)


class LearningReference(ToyPolicy):
    """The reference was not frozen."""

    def frozen_copy(self) -> ToyPolicy:
        return copy.deepcopy(self)


class Fails(ToyPolicy):
    """Drawing breaks."""

    def sample(self, prompt: Tensor, num_candidates: int, temperature: float = 1.0) -> Actions:
        raise RuntimeError("shape mismatch in the tower")


class Infinite(ToyPolicy):
    """Log-probs of the loss are NaN, those drawn at are not."""

    def log_probs(self, prompt: Tensor, actions: Actions, temperature: float = 1.0) -> StepLogProbs:
        scores = super().log_probs(prompt, actions, temperature)
        if torch.is_grad_enabled():
            return StepLogProbs(scores.logp_BGT * torch.nan)
        return scores


class StaleSampler(FreshSampler):
    """Candidates come from a copy that was never given the weights."""

    old: ToyPolicy | None = None

    def __call__(
        self, policy: Policy, prompt: Any, queries: Sequence[int], temperature: float
    ) -> Actions:
        self.old = self.old or ToyPolicy(queries=3, seed=7)
        return super().__call__(self.old, self.old.encode(queries), queries, temperature)


class OptimisesACopy(GroupPolicyModule):
    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(copy.deepcopy(self.policy).parameters(), lr=0.05)


class StandsStill(GroupPolicyModule):
    """A rate that rounds away."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.policy.parameters(), lr=1e-30)


class SchedulesNothing(GroupPolicyModule):
    """The schedule's factor is 0 at every step."""

    def configure_optimizers(self) -> Any:
        found = super().configure_optimizers()
        scheduler = torch.optim.lr_scheduler.LambdaLR(found["optimizer"], lambda step: 0.0)
        return found | {"lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class RoundsAway(GroupPolicyModule):
    """Half-precision weights without masters, at a rate that most of them cannot show."""

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.policy.parameters(), lr=1e-3)


class ScoresOldAgain(GroupPolicyModule):
    """Old log-probs are taken from the updated policy, as `logp.detach()` would give them."""

    def transfer_batch_to_device(self, batch: Batch, device: Any, dataloader_idx: int) -> Batch:
        assert isinstance(batch, Group)
        with torch.no_grad():
            logp = self.policy.log_probs(self.policy.encode(batch.queries), batch.actions).logp_BGT
        return replace(batch, actions=replace(batch.actions, logp_BGT=logp))


class LosesAdvantages(GroupPolicyModule):
    def judge(self, queries: Sequence[int], actions: Actions) -> Group:
        group = super().judge(queries, actions)
        return replace(group, advantages_BGT=torch.zeros_like(group.advantages_BGT))


class ClimbsTheLoss(GroupPolicyModule):
    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.policy.parameters(), lr=0.05, maximize=True)


class Poisons(Callback):
    """All gradients are NaN at some steps, and all weights if asked."""

    def __init__(self, *steps: int, weights: bool = False) -> None:
        self.steps = steps
        self.weights = weights

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step in self.steps:
            for parameter in pl_module.parameters():
                if parameter.grad is not None:
                    parameter.grad.fill_(torch.nan)
                if self.weights:
                    parameter.data.fill_(torch.nan)


class Freezes(Callback):
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.requires_grad_(False)


def built(kind: type[GroupPolicyModule]) -> Callable[..., GroupPolicyModule]:
    """As `module_of`, of another class."""

    def make(*args: Any, **kwargs: Any) -> GroupPolicyModule:
        module = module_of(*args, **kwargs)
        module.__class__ = kind
        return module

    return make


def broken(policy: ToyPolicy) -> ToyPolicy:
    policy.logits.data[0, 0, 0] = torch.nan
    return policy


def garbled() -> ToyPolicy:
    """One option again and again."""
    policy = ToyPolicy(queries=3, steps=12)
    policy.logits.data[..., 1] += 6.0
    return policy
