"""The loss of one step over a group: reward-weighted cross entropy, or policy gradient and KL."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core_rl.loss_config import KLKind, LossConfig, RatioLevel
from core_rl.objective.curriculum import Phase
from core_rl.objective.kl import KLController, kl_per_step
from core_rl.objective.losses import (
    count_units,
    importance_ratio,
    learning_steps,
    policy_loss,
    rce_loss,
    rce_weights,
    sum_steps,
)
from core_rl.objective.mismatch import mismatch_weights
from core_rl.types import Group, Reference, StepLogProbs, masked_mean

Stats = dict[str, Any]  # figures to log, by name


class PhaseLoss:
    """What a phase minimises.

    Not an `nn.Module`: the reference must not be in a checkpoint of weights, and the controller is
    a part of the module that learns.

    Args:
        config: objective, advantages and KL.
        controller: of the KL term's weight; observes every step.
        max_completion: T at most, the constant of `dr_grpo`.

    Attributes:
        reference: the policy that the KL term holds on to; None without that term.
    """

    def __init__(self, config: LossConfig, controller: KLController, max_completion: int) -> None:
        self.config = config
        self.controller = controller
        self.max_completion = max_completion
        self.reference: Reference | None = None

    def rce(
        self, group: Group, scores: StepLogProbs, phase: Phase, step: int
    ) -> tuple[Tensor, Tensor, Stats]:
        """Weigh the cross entropy of each candidate by its reward; returns as `grpo` does."""
        tau = phase.tau(step)
        weights_BG = rce_weights(
            group.rewards.total_BG.to(scores.logp_BGT.device),
            tau,
            zscore=phase.config.zscore_scores,
            valid_BG=group.actions.mask_BGT.any(-1),
        )
        total, queries = rce_loss(scores.logp_BGT, group.actions.mask_BGT, weights_BG)
        return total, queries, {"tau": tau}

    def measures_at_one(self, temperature: float) -> bool:
        """Whether `grpo` needs scores at temperature 1: the temperature follows KL and is not 1."""
        return self.reference is not None and self.config.kl.follow_temperature and temperature != 1

    def grpo(
        self,
        group: Group,
        scores: StepLogProbs,
        temperature: float,
        at_one: StepLogProbs | None = None,
    ) -> tuple[Tensor, Tensor, Stats]:
        """Follow the advantages, near the reference where there is one.

        Args:
            group: of candidates with the log-probs they were drawn at.
            scores: of the candidates under the policy, with a graph.
            temperature: of these scores, for those of the reference.
            at_one: scores at temperature 1, without a graph, where `measures_at_one`.

        Returns:
            The sum of the loss over the units that learn, with a graph; their number (see
            `core_rl.objective.losses.count_units`); and figures to log.
        """
        actions, reduction = group.actions, self.config.reduction
        assert actions.logp_BGT is not None, "GRPO needs the log-probs its candidates were drawn at"
        # Learn from the steps of groups whose rewards differ.
        learning_BGT = learning_steps(actions, group.mixed_B, self.config.mask_truncated)

        # Weigh steps that an engine drew with slightly other probabilities.
        weight_BGT: Tensor | None = None
        stats: Stats = {}
        if actions.engine_logp_BGT is not None:
            weight_BGT, stats = mismatch_weights(
                actions.logp_BGT, actions.engine_logp_BGT, actions.mask_BGT, self.config.mismatch
            )

        # Policy gradient: ratio to the old log-probs times advantage, clipped.
        loss_BGT, more = policy_loss(
            scores.logp_BGT,
            actions.logp_BGT,
            group.advantages_BGT,
            learning_BGT,
            self.config,
            weight_BGT,
        )
        total, stats = sum_steps(loss_BGT, learning_BGT, reduction), stats | more

        # KL to the reference, with the weight that its controller has set.
        if self.reference is not None:
            with torch.no_grad():
                prompt = self.reference.encode(group.queries)
            kl_BGT = self._kl(prompt, group, scores, temperature)
            at_one_BGT = None if at_one is None else self._kl(prompt, group, at_one, 1.0)
            kl = self._observe(kl_BGT if at_one_BGT is None else at_one_BGT, learning_BGT)
            weight = self.controller.weight.clone()
            total = total + weight * sum_steps(kl_BGT, learning_BGT, reduction)
            stats |= {"kl": kl, "kl_weight": weight}
        return total, count_units(learning_BGT, reduction, self.max_completion), stats

    def _kl(
        self, ref_prompt: object, group: Group, scores: StepLogProbs, temperature: float
    ) -> Tensor:
        """KL BGT to the policy at the start of the phase, both at the temperature of the scores."""
        actions, kind = group.actions, self.config.kl.kind
        assert actions.logp_BGT is not None and self.reference is not None
        with torch.no_grad():
            ref = self.reference.log_probs(ref_prompt, actions, temperature)
        ratio_BGT: Tensor | None = None
        if kind in (KLKind.k1, KLKind.k3):
            # With the ratio's graph the estimators have the gradient of KL(pi || ref).
            ratio_BGT = importance_ratio(
                scores.logp_BGT, actions.logp_BGT, actions.mask_BGT, RatioLevel.token
            )
        return kl_per_step(scores, ref, kind, actions.mask_BGT, ratio_BGT)

    def _observe(self, kl_BGT: Tensor, learning_BGT: Tensor) -> Tensor:
        """Show the controller the mean KL of the steps that learn, and return it."""
        measured = masked_mean(kl_BGT.detach(), learning_BGT)
        self.controller.observe(measured, learning_BGT.sum())
        return measured
