"""Objectives as pure functions of log-probabilities: reward-weighted CE and the clipped surrogate.

Every loss is first one number a step, then reduced; see `reduce_steps`.  Where a reduction or an
objective bears a name that TRL uses, it gives TRL 1.16's number for the same tensors, but for:

* groups without contrast (`mixed_B` False) and candidates without a real step leave the numerator
  AND the denominator; TRL adds their zeros and divides by the full count;
* `eps_high` bounds CISPO's ratio at 1 + eps_high, as arXiv 2506.13585 writes it and as the clipped
  objective means it; TRL bounds it at `epsilon_high` itself, so its 5.0 is 4.0 here;
* CISPO takes any reduction (TRL: always that of dapo);
* `dual_clip` acts on A < 0 alone; TRL's `delta` below 1 + eps_high also cuts A > 0;
* log-ratios are held within +-20 before they are exponentiated, so that one broken step cannot
  make the loss infinite.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core_rl.loss_config import LossConfig, Objective, RatioLevel, Reduction
from core_rl.objective.advantages import is_mixed, moments
from core_rl.types import Actions, masked_mean

MAX_LOG_RATIO = 20.0  # exp(20) = 4.9e8


def rce_weights(
    scores_BG: Tensor, tau: float, zscore: bool = True, valid_BG: Tensor | None = None
) -> Tensor:
    """Weigh the candidates of a query by softmax(score / tau).

    Raw scores of a small spread (.046 to .030, say) give uniform weights at any usual tau, so by
    default scores are z-scored inside the group first (unbiased deviation).

    Args:
        scores_BG: any finite numbers; NaN where nothing judged the candidate.
        tau: temperature above 0; small picks the best, large weighs all alike.
        zscore: standardise inside the group first.  Groups without contrast get uniform weights.
        valid_BG: False on padding candidates.

    Returns:
        Weights BG, detached, that sum to 1 over the valid and judged candidates of a group and are
        0 elsewhere; all 0 for a group that has none.
    """
    assert tau > 0, f"tau={tau}: a softmax temperature is above 0"
    usable_BG = ~scores_BG.isnan() if valid_BG is None else valid_BG & ~scores_BG.isnan()
    scores_BG = torch.where(usable_BG, scores_BG.detach(), 0.0)
    if zscore:
        mean_B1, std_B1 = moments(scores_BG, usable_BG)
        mixed_B1 = is_mixed(scores_BG, usable_BG).unsqueeze(-1)
        scores_BG = torch.where(mixed_B1, (scores_BG - mean_B1) / std_B1, 0.0)
    logits_BG = (scores_BG / tau).masked_fill(~usable_BG, -torch.inf)
    return logits_BG.softmax(dim=-1).nan_to_num(nan=0.0)


def rce_loss(logp_BGT: Tensor, mask_BGT: Tensor, weights_BG: Tensor) -> Tensor:
    """Reward-weighted cross entropy: L = 1/B sum_b sum_g w_bg sum_t -log pi(a_bgt | q_b, a_bg<t).

    Cross entropy is summed over a candidate's steps, as for one joint choice; queries whose weights
    are all 0 do not count in B.  A weight vector that is one-hot gives supervised training.
    """
    ce_BG = -torch.where(mask_BGT, logp_BGT, 0.0).sum(dim=-1)
    queries = (weights_BG.sum(dim=-1) > 0).sum().clamp(min=1)
    return (weights_BG * ce_BG).sum() / queries


def importance_ratio(
    logp_BGT: Tensor, old_logp_BGT: Tensor, mask_BGT: Tensor, level: RatioLevel
) -> Tensor:
    """Probability ratio of the policy to the one that drew the candidates.

    Returns:
        token: exp(logp_t - old_t), BGT.  sequence: exp of the mean log-ratio over the candidate's
        steps, BG1 (GSPO, arXiv 2507.18071, equation 7); every step then shares the gradient of the
        mean.  sequence_sum: exp of the summed log-ratio, BG1: the true ratio of the candidates'
        probabilities, for short candidates.  1 on masked steps and empty candidates.
    """
    log_ratio = torch.where(mask_BGT, logp_BGT - old_logp_BGT, 0.0)
    if level is not RatioLevel.token:
        steps_BG1 = mask_BGT.sum(dim=-1, keepdim=True).clamp(min=1)
        log_ratio = log_ratio.sum(dim=-1, keepdim=True)
        log_ratio = log_ratio / steps_BG1 if level is RatioLevel.sequence else log_ratio
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def policy_loss(
    logp_BGT: Tensor,
    old_logp_BGT: Tensor,
    advantages_BGT: Tensor,
    mask_BGT: Tensor,
    mixed_B: Tensor,
    cfg: LossConfig,
    max_length: int | None = None,
    normalizer: float | None = None,
    weight_BGT: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Policy-gradient loss of B groups, without the KL term.

    Args:
        logp_BGT: under the policy being trained, with a graph.
        old_logp_BGT: under the policy that drew the candidates, from the sampler.
        advantages_BGT: see `core_rl.objective.advantages.group_advantages`.
        mask_BGT: True on the steps that learn; see `loss_mask`.
        mixed_B: False on groups that carry no signal; they are left out altogether.
        cfg: objective, ratio level, clip range, reduction.
        max_length: longest candidate the sampler allows; `dr_grpo` divides by it.
        normalizer: see `reduce_steps`; `dapo` divides by it.
        weight_BGT: importance weights of steps that another engine drew; None = 1.

    Returns:
        The loss (0, with a graph, where no group is mixed) and detached scalars over the steps that
        learn: `ratio_mean`, `ratio_max`, `ratio_min`, `log_ratio_abs` (largest |log ratio| of a
        step), `clip_fraction` and its parts `clip_low`, `clip_high`, and `dual_clip_fraction`.
    """
    ratio = importance_ratio(logp_BGT, old_logp_BGT, mask_BGT, cfg.ratio_level)
    step_loss_BGT = surrogate(ratio, logp_BGT, advantages_BGT, cfg)
    if weight_BGT is not None:
        step_loss_BGT = step_loss_BGT * weight_BGT
    loss = reduce_steps(step_loss_BGT, mask_BGT, mixed_B, cfg.reduction, max_length, normalizer)
    used_BGT = mask_BGT & mixed_B.view(-1, 1, 1)
    log_ratio_BGT = torch.where(used_BGT, logp_BGT.detach() - old_logp_BGT, 0.0)
    stats = _ratio_statistics(ratio.detach(), advantages_BGT, used_BGT, cfg)
    return loss, {**stats, "log_ratio_abs": log_ratio_BGT.abs().max()}


def surrogate(ratio: Tensor, logp_BGT: Tensor, advantages_BGT: Tensor, cfg: LossConfig) -> Tensor:
    """Loss of every step; `ratio` is BGT or BG1.

    clip: -min(r A, clip(r, 1 - eps_low, 1 + eps_high) A) (PPO, arXiv 1707.06347, equation 7; the
    wider upper bound is DAPO's, arXiv 2503.14476).  With `dual_clip` c, a step with A < 0 never
    costs more than c |A| (arXiv 1912.09729, equation 5); steps with A > 0 are left alone.

    cispo: -min(r, 1 + eps_high).detach() A log pi: the ratio only weighs, no step's gradient is cut
    off (arXiv 2506.13585, equation 4).
    """
    if cfg.objective is Objective.cispo:
        return -ratio.clamp(max=1 + cfg.eps_high).detach() * advantages_BGT * logp_BGT
    clipped = ratio.clamp(1 - cfg.eps_low, 1 + cfg.eps_high)
    gain_BGT = torch.minimum(ratio * advantages_BGT, clipped * advantages_BGT)
    if cfg.dual_clip is not None:
        floor_BGT = cfg.dual_clip * advantages_BGT
        gain_BGT = torch.where(advantages_BGT < 0, torch.maximum(gain_BGT, floor_BGT), gain_BGT)
    return -gain_BGT


def reduce_steps(
    values_BGT: Tensor,
    mask_BGT: Tensor,
    mixed_B: Tensor,
    reduction: Reduction,
    max_length: int | None = None,
    normalizer: float | None = None,
) -> Tensor:
    """Turn one number a step into one number; the KL term goes through the same reduction.

    Over the real steps of mixed groups: grpo is the mean over steps of each candidate, then over
    candidates; bnpo the sum over steps / their count; dr_grpo the sum / (candidates * max_length),
    arXiv 2503.20783; dapo the sum / `normalizer`.

    Args:
        values_BGT: any numbers, also where the mask is False; BG1 is broadcast.
        mask_BGT: True on the steps that learn.
        mixed_B: True on the groups that learn.
        reduction: which of the four.
        max_length: needed by `dr_grpo`.
        normalizer: needed by `dapo`: the steps that learn (`count_steps`) in the whole batch behind
            one optimiser step, divided by the number of micro-batches and ranks whose gradients
            are averaged (not summed) into it.
    """
    used_BGT = mask_BGT & mixed_B.view(-1, 1, 1)
    values_BGT = torch.where(used_BGT, values_BGT, 0.0)
    steps_BG = used_BGT.sum(dim=-1)
    candidates = (steps_BG > 0).sum().clamp(min=1)
    if reduction is Reduction.grpo:
        return (values_BGT.sum(dim=-1) / steps_BG.clamp(min=1)).sum() / candidates
    if reduction is Reduction.bnpo:
        return values_BGT.sum() / steps_BG.sum().clamp(min=1)
    if reduction is Reduction.dr_grpo:
        assert max_length is not None, "dr_grpo divides by the longest candidate allowed"
        return values_BGT.sum() / (candidates * max_length)
    assert reduction is Reduction.dapo, reduction
    assert normalizer is not None, "dapo divides by the steps of the whole batch"
    # No step learns anywhere: the sum is 0 as well.
    return values_BGT.sum() / (normalizer if normalizer > 0 else 1.0)


def count_steps(mask_BGT: Tensor, mixed_B: Tensor) -> Tensor:
    """Count the steps that learn, for `dapo`'s normalizer."""
    return (mask_BGT & mixed_B.view(-1, 1, 1)).sum()


def loss_mask(actions: Actions, mask_truncated: bool) -> Tensor:
    """Steps BGT that may learn: all real ones, without the candidates that the length limit cut.

    A cut candidate gets its reward for a text it never finished; DAPO (arXiv 2503.14476, section
    3.4) leaves it out.
    """
    if not mask_truncated or actions.truncated_BG is None:
        return actions.mask_BGT
    return actions.mask_BGT & ~actions.truncated_BG.unsqueeze(-1)


def _ratio_statistics(
    ratio: Tensor, advantages_BGT: Tensor, used_BGT: Tensor, cfg: LossConfig
) -> dict[str, Tensor]:
    ratio_BGT = torch.where(used_BGT, ratio, 1.0)
    if cfg.objective is Objective.cispo:
        low_BGT = torch.zeros_like(used_BGT)
        high_BGT = ratio_BGT > 1 + cfg.eps_high
    else:
        low_BGT = (ratio_BGT < 1 - cfg.eps_low) & (advantages_BGT < 0)
        high_BGT = (ratio_BGT > 1 + cfg.eps_high) & (advantages_BGT > 0)
    bound = torch.inf if cfg.dual_clip is None else cfg.dual_clip
    dual_BGT = (ratio_BGT > bound) & (advantages_BGT < 0)
    shares = {
        "clip_fraction": low_BGT | high_BGT,
        "clip_low": low_BGT,
        "clip_high": high_BGT,
        "dual_clip_fraction": dual_BGT,
    }
    return {
        # Written around 1, the value where no step learns.
        "ratio_mean": 1 + masked_mean(ratio_BGT - 1, used_BGT),
        "ratio_max": ratio_BGT.max(),
        "ratio_min": ratio_BGT.min(),
        **{name: masked_mean(hit.to(ratio_BGT), used_BGT) for name, hit in shares.items()},
    }
