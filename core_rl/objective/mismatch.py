"""Importance weights for candidates that another engine drew.

An inference engine computes the same policy in other kernels, another precision, sometimes with
weights a step old: what it drew is not quite from the policy that learns.  Each step of the loss is
weighed by pi(a) / mu(a), the policy at the time of the draw over the engine, which is cut at `cap`
(Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training") or, for
`mask`, set to 0 beyond it.  The weight carries no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core_rl.loss_config import MismatchConfig, MismatchLevel, OverCap
from core_rl.types import masked_mean

# Beyond e^20 the two have nothing in common; keeps inf out of the sums.
MAX_LOG_WEIGHT = 20.0


def mismatch_weights(
    policy_logp_BGT: Tensor, engine_logp_BGT: Tensor, mask_BGT: Tensor, config: MismatchConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weigh each step by what the policy and the engine say of it.

    Args:
        policy_logp_BGT: of the drawn options under the policy as it was at the draw.
        engine_logp_BGT: of the same under the engine that drew them.
        mask_BGT: True on real steps.
        config: `token` weighs each step by its own ratio, `sequence` all steps of a candidate by
            the ratio of the whole; what becomes of ratios above the cap.

    Returns:
        Weights BGT from 0 to the cap, 1 on masked steps, and statistics: the mean |log ratio| of a
        step, the largest, the mean weight, the share of steps beyond the cap.
    """
    log_ratio_BGT = torch.where(mask_BGT, policy_logp_BGT - engine_logp_BGT, 0.0)
    weight = log_ratio_BGT
    if config.level is MismatchLevel.sequence:
        weight = log_ratio_BGT.sum(dim=-1, keepdim=True).expand_as(log_ratio_BGT)
    weight = weight.clamp(-MAX_LOG_WEIGHT, MAX_LOG_WEIGHT).exp()
    beyond = weight > config.cap
    if config.over_cap is OverCap.truncate:
        weight = weight.clamp(max=config.cap)
    else:
        weight = torch.where(beyond, 0.0, weight)
    stats = {
        "mismatch_mean": masked_mean(log_ratio_BGT.abs(), mask_BGT),
        "mismatch_max": log_ratio_BGT.abs().max(),
        "mismatch_weight": masked_mean(weight, mask_BGT),
        "mismatch_capped": masked_mean(beyond.to(weight), mask_BGT),
    }
    return torch.where(mask_BGT, weight, 1.0), stats
