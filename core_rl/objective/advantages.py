"""Rewards of a group to advantages.

    z-score         A_i = (r_i - mean r) / max(std r, floor)     GRPO, arXiv 2402.03300, section 4.1
    mean            A_i = r_i - mean r                           Dr. GRPO, arXiv 2503.20783
    leave one out   A_i = r_i - mean of the others' r            RLOO, arXiv 2402.14740
    rank            A_i = z-score of the mid-rank of r_i

How this differs from the papers:

* the standard deviation is unbiased and floored per reward (`max(std, floor)`, not `std + eps`), so
  noise of 1e-8 is not blown up to advantages of order 1;
* a reward that could not judge a candidate (NaN) is centred over the candidates it judged and adds
  0 to the others.  A missing judgement is therefore neither a bonus nor a penalty, as it would be
  if the plain sums of unequal sets of rewards were compared;
* a reward may be confined to a span of the candidate: it then moves only the span's tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from core_rl.loss_config import AdvantageConfig, AdvantageKind, Normalise
from core_rl.types import Actions, RewardTable

# Rewards closer than this are equal: what floating point leaves of a constant group.
FLAT_SPREAD = 1e-6

WHOLE = ""  # The scope of a reward that is confined to no span.


def group_advantages(
    rewards: RewardTable,
    weights: Mapping[str, float],
    cfg: AdvantageConfig,
    spans: Mapping[str, str],
    actions: Actions,
) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Turn the rewards of B groups into an advantage for every step.

    With `normalise=sum` the weighted rewards are added and the sum is normalised inside the group;
    with `normalise=each` every reward is normalised by itself, weighted and added, so that a reward
    of small spread is heard as well as one of large spread.

    Args:
        rewards: values RBG of the R functions; NaN where one could not judge.
        weights: weight of each function by name; those not named, or of weight 0, only watch.
        cfg: kind, normalisation, floors (`total` names the sum's floor) and the clip.
        spans: name of a reward -> name of the span of `actions.spans` it may steer.
        actions: the candidates; one without a single real step is padding and takes no part.

    Returns:
        Advantages BGT in [-clip, clip], 0 on masked steps and in flat groups; `mixed_B`, True where
        a group's rewards differ by more than `FLAT_SPREAD`; and the statistics `mixed_share`,
        `advantage_abs` (mean over real steps of mixed groups), `advantage_max`,
        `advantage_clipped` (share of those steps).

    Raises:
        ValueError: a weight names no reward, a span is not in `actions.spans`, or ranks of a sum
            are asked for while a reward is confined to a span (ranks do not add up over spans).
    """
    _check_names(rewards, weights, cfg, spans, actions)
    mask_BGT = actions.mask_BGT
    values_RBG = rewards.values_RBG.to(mask_BGT.device)
    real_BG = mask_BGT.any(dim=-1)
    terms = [
        (name, weights[name], spans.get(name, WHOLE), values_BG, real_BG & ~values_BG.isnan())
        for name, values_BG in zip(rewards.names, values_RBG, strict=True)
        if weights.get(name, 0.0) != 0.0
    ]
    combine = _of_sum if cfg.normalise is Normalise.sum else _of_each
    parts, mixed_B = combine(terms, cfg, real_BG, values_RBG.new_zeros(real_BG.shape))

    raw_BGT = values_RBG.new_zeros(mask_BGT.shape)
    for scope, part_BG in parts.items():
        where_BGT = mask_BGT if scope == WHOLE else mask_BGT & actions.spans[scope].bool()
        raw_BGT = raw_BGT + part_BG.unsqueeze(-1) * where_BGT
    raw_BGT = raw_BGT * mixed_B.view(-1, 1, 1)
    advantages_BGT = raw_BGT.clamp(-cfg.clip, cfg.clip)
    return advantages_BGT, mixed_B, _statistics(raw_BGT, mask_BGT, mixed_B, cfg.clip)


def moments(values_BG: Tensor, valid_BG: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased standard deviation of each group's valid values, both B1.

    The deviation of fewer than two values is 0; so is the mean of none.
    """
    count_B1 = valid_BG.sum(dim=-1, keepdim=True)
    kept_BG = torch.where(valid_BG, values_BG, 0.0)
    mean_B1 = kept_BG.sum(dim=-1, keepdim=True) / count_B1.clamp(min=1)
    squares_BG = torch.where(valid_BG, kept_BG - mean_B1, 0.0).square()
    variance_B1 = squares_BG.sum(dim=-1, keepdim=True) / (count_B1 - 1).clamp(min=1)
    return mean_B1, variance_B1.sqrt()


def is_mixed(values_BG: Tensor, valid_BG: Tensor) -> Tensor:
    """Tell for each group whether its valid values differ by more than `FLAT_SPREAD`."""
    high_B = values_BG.masked_fill(~valid_BG, -torch.inf).amax(dim=-1)
    low_B = values_BG.masked_fill(~valid_BG, torch.inf).amin(dim=-1)
    return high_B - low_B > FLAT_SPREAD


def mid_ranks(values_BG: Tensor, valid_BG: Tensor) -> Tensor:
    """Ranks of the valid values, centred at 0, equal values sharing theirs; 0 where invalid."""
    difference_BGG = values_BG.unsqueeze(-1) - values_BG.unsqueeze(-2)
    sign_BGG = torch.where(difference_BGG.abs() > FLAT_SPREAD, difference_BGG.sign(), 0.0)
    pairs_BGG = valid_BG.unsqueeze(-1) & valid_BG.unsqueeze(-2)
    return 0.5 * torch.where(pairs_BGG, sign_BGG, 0.0).sum(dim=-1)


_Term = tuple[str, float, str, Tensor, Tensor]  # name, weight, scope, values BG, judged BG
_Parts = dict[str, Tensor]  # scope -> its share of the advantage, BG


def _of_sum(
    terms: list[_Term], cfg: AdvantageConfig, real_BG: Tensor, zero_BG: Tensor
) -> tuple[_Parts, Tensor]:
    """Normalise the weighted sum; every scope gets its share, on the scale of the whole sum."""
    parts: _Parts = {}
    total_BG, judged_BG = zero_BG, torch.zeros_like(real_BG)
    for _, weight, scope, values_BG, valid_BG in terms:
        centred_BG = weight * _centre(values_BG, valid_BG)
        parts[scope] = parts.get(scope, zero_BG) + centred_BG
        total_BG, judged_BG = total_BG + centred_BG, judged_BG | valid_BG
    if cfg.kind is AdvantageKind.rank:
        parts = {scope: _normalise(total_BG, judged_BG, cfg, "total") for scope in parts}
    else:
        scale_B1 = _scale(total_BG, judged_BG, cfg, "total")
        parts = {scope: part_BG * scale_B1 for scope, part_BG in parts.items()}
    return parts, is_mixed(total_BG, judged_BG)


def _of_each(
    terms: list[_Term], cfg: AdvantageConfig, real_BG: Tensor, zero_BG: Tensor
) -> tuple[_Parts, Tensor]:
    """Normalise every reward inside its group, then weigh and add."""
    parts: _Parts = {}
    mixed_B = torch.zeros_like(real_BG[:, 0])
    for name, weight, scope, values_BG, valid_BG in terms:
        differs_B = is_mixed(values_BG, valid_BG)
        own_BG = _normalise(_centre(values_BG, valid_BG), valid_BG, cfg, name)
        parts[scope] = parts.get(scope, zero_BG) + weight * own_BG * differs_B.unsqueeze(-1)
        mixed_B = mixed_B | differs_B
    return parts, mixed_B


def _centre(values_BG: Tensor, valid_BG: Tensor) -> Tensor:
    mean_B1, _ = moments(values_BG, valid_BG)
    return torch.where(valid_BG, values_BG - mean_B1, 0.0)


def _normalise(centred_BG: Tensor, valid_BG: Tensor, cfg: AdvantageConfig, name: str) -> Tensor:
    """Advantage of centred values of one reward, before any weight."""
    if cfg.kind is AdvantageKind.rank:
        ranks_BG = mid_ranks(centred_BG, valid_BG)
        _, std_B1 = moments(ranks_BG, valid_BG)
        # Ranks have no unit, so no floor; two unequal values already have a deviation of .7.
        return ranks_BG / torch.where(std_B1 > 0, std_B1, 1.0)
    return centred_BG * _scale(centred_BG, valid_BG, cfg, name)


def _scale(centred_BG: Tensor, valid_BG: Tensor, cfg: AdvantageConfig, name: str) -> Tensor:
    """Factor B1 that turns centred rewards into advantages of the linear kinds."""
    if cfg.kind is AdvantageKind.zscore:
        _, std_B1 = moments(centred_BG, valid_BG)
        return 1.0 / std_B1.clamp(min=_floor(cfg, name))
    count_B1 = valid_BG.sum(dim=-1, keepdim=True).to(centred_BG.dtype)
    if cfg.kind is AdvantageKind.leave_one_out:
        # r_i - mean of the others = n / (n - 1) * (r_i - mean of all)
        return count_B1 / (count_B1 - 1).clamp(min=1)
    assert cfg.kind is AdvantageKind.mean, cfg.kind
    return torch.ones_like(count_B1)


def _floor(cfg: AdvantageConfig, name: str) -> float:
    floor = cfg.std_floor.get(name, cfg.std_floor.get("default"))
    if floor is None:
        raise ValueError(
            f"loss.advantage.std_floor={dict(cfg.std_floor)}: no floor for {name!r}; "
            "name it there or give a `default`"
        )
    return floor


def _check_names(
    rewards: RewardTable,
    weights: Mapping[str, float],
    cfg: AdvantageConfig,
    spans: Mapping[str, str],
    actions: Actions,
) -> None:
    unknown = sorted(set(weights) - set(rewards.names))
    if unknown:
        raise ValueError(
            f"reward.weights={unknown}: expected names of reward functions, "
            f"which are {sorted(rewards.names)}"
        )
    for name, span in spans.items():
        if weights.get(name, 0.0) == 0.0:
            continue
        if span not in actions.spans:
            raise ValueError(
                f"reward.spans.{name}={span!r}: the candidates have only the spans "
                f"{sorted(actions.spans)}"
            )
        if cfg.normalise is Normalise.sum and cfg.kind is AdvantageKind.rank:
            raise ValueError(
                f"loss.advantage.kind=rank: ranks of a sum cannot be split over the span {span!r} "
                f"of reward {name!r}; set loss.advantage.normalise=each"
            )


def _statistics(
    raw_BGT: Tensor, mask_BGT: Tensor, mixed_B: Tensor, clip: float
) -> dict[str, float]:
    used_BGT = mask_BGT & mixed_B.view(-1, 1, 1)
    size_BGT = raw_BGT.abs() * used_BGT
    count = used_BGT.sum().clamp(min=1)
    return {
        "mixed_share": mixed_B.float().mean().item(),
        "advantage_abs": (size_BGT.clamp(max=clip).sum() / count).item(),
        "advantage_max": size_BGT.clamp(max=clip).max().item(),
        "advantage_clipped": ((size_BGT > clip).sum() / count).item(),
    }
