"""Objectives as pure functions of log-probabilities: reward-weighted CE and the clipped surrogate.

Every loss is first one number a step, then added up (`sum_steps`) and divided by the units that
learn (`count_units`).  The units are those of the whole optimiser step, over its micro-batches and
processes (`core_rl.loop.denominator`), so that what a step learns does not depend on how its
questions are cut up.  Where a reduction or an objective bears a name that TRL uses, it gives TRL
1.16's number for the same tensors in one batch, but for:

* groups without contrast and candidates without a real step leave the numerator AND the
  denominator; TRL adds their zeros and divides by the full count;
* bnpo and dapo are one and the same: both divide by the steps of the whole optimiser step, TRL's
  bnpo by those of each micro-batch;
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


def rce_loss(logp_BGT: Tensor, mask_BGT: Tensor, weights_BG: Tensor) -> tuple[Tensor, Tensor]:
    """Reward-weighted cross entropy: L = 1/B sum_b sum_g w_bg sum_t -log pi(a_bgt | q_b, a_bg<t).

    Cross entropy is summed over a candidate's steps, as for one joint choice; queries whose weights
    are all 0 do not count in B.  A weight vector that is one-hot gives supervised training.

    Returns:
        The sum over queries, with a graph, and B.
    """
    ce_BG = -torch.where(mask_BGT, logp_BGT, 0.0).sum(dim=-1)
    return (weights_BG * ce_BG).sum(), (weights_BG.sum(dim=-1) > 0).sum()


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
    learning_BGT: Tensor,
    cfg: LossConfig,
    weight_BGT: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Policy-gradient loss of every step, without the KL term.

    Args:
        logp_BGT: under the policy being trained, with a graph.
        old_logp_BGT: under the policy that drew the candidates, from the sampler.
        advantages_BGT: see `core_rl.objective.advantages.group_advantages`.
        learning_BGT: True on the steps that learn; see `learning_steps`.
        cfg: objective, ratio level, clip range.
        weight_BGT: importance weights of steps that another engine drew; None = 1.

    Returns:
        BGT, to be added up by `sum_steps`; and detached scalars over the steps that learn:
        `ratio_mean`, `ratio_max`, `ratio_min`, `log_ratio_abs` (largest |log ratio| of a step),
        `clip_fraction` and its parts `clip_low`, `clip_high`, and `dual_clip_fraction`.
    """
    ratio = importance_ratio(logp_BGT, old_logp_BGT, learning_BGT, cfg.ratio_level)
    step_loss_BGT = surrogate(ratio, logp_BGT, advantages_BGT, cfg)
    if weight_BGT is not None:
        step_loss_BGT = step_loss_BGT * weight_BGT
    log_ratio_BGT = torch.where(learning_BGT, logp_BGT.detach() - old_logp_BGT, 0.0)
    stats = _ratio_statistics(ratio.detach(), advantages_BGT, learning_BGT, cfg)
    return step_loss_BGT, {**stats, "log_ratio_abs": log_ratio_BGT.abs().max()}


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


def sum_steps(values_BGT: Tensor, learning_BGT: Tensor, reduction: Reduction) -> Tensor:
    """Add up one number a step; the KL term goes through the same reduction.

    Args:
        values_BGT: any numbers, also on steps that do not learn; BG1 is broadcast.
        learning_BGT: True on the steps that learn.
        reduction: `grpo` takes the mean over the steps of each candidate first.

    Returns:
        A scalar, 0 with a graph where nothing learns; to be divided by `count_units`.
    """
    values_BGT = torch.where(learning_BGT, values_BGT, 0.0)
    if reduction is Reduction.grpo:
        values_BGT = values_BGT / learning_BGT.sum(dim=-1, keepdim=True).clamp(min=1)
    return values_BGT.sum()


def count_units(
    learning_BGT: Tensor, reduction: Reduction, max_length: int | None = None
) -> Tensor:
    """Count what the sum is divided by: candidates (grpo), steps (bnpo, dapo), or what fits.

    Args:
        learning_BGT: True on the steps that learn.
        reduction: dr_grpo counts candidates * `max_length`, arXiv 2503.20783.
        max_length: longest candidate that the sampler allows.
    """
    candidates = learning_BGT.any(dim=-1).sum()
    if reduction is Reduction.grpo:
        return candidates
    if reduction is Reduction.dr_grpo:
        assert max_length is not None, "dr_grpo divides by the longest candidate allowed"
        return candidates * max_length
    assert reduction in (Reduction.bnpo, Reduction.dapo), reduction
    return learning_BGT.sum()


def reduce_steps(
    values_BGT: Tensor, learning_BGT: Tensor, reduction: Reduction, max_length: int | None = None
) -> Tensor:
    """Turn one number a step into one number, of a batch that is a whole optimiser step."""
    units = count_units(learning_BGT, reduction, max_length)
    return sum_steps(values_BGT, learning_BGT, reduction) / units.clamp(min=1)


def learning_steps(actions: Actions, mixed_B: Tensor, mask_truncated: bool) -> Tensor:
    """Steps BGT that learn: the real ones of groups that carry a signal.

    With `mask_truncated` the candidates that the length limit cut are left out as well: a cut
    candidate gets its reward for a text it never finished (DAPO, arXiv 2503.14476, section 3.4).
    """
    learning_BGT = actions.mask_BGT & mixed_B.view(-1, 1, 1)
    if not mask_truncated or actions.truncated_BG is None:
        return learning_BGT
    return learning_BGT & ~actions.truncated_BG.unsqueeze(-1)


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
