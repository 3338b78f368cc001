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
* a reward may be confined to a span of the candidate: it then moves only the span's tokens;
* the clip bounds an advantage before its weight: with weights that sum to 4, a lone winner of eight
  has 4 * 2.47 = 9.9, which a clip of 5 must not cut;
* candidates that were not drawn independently carry weights (`Actions.share_BG`): means, deviations
  and advantages are then weighted, see `core_rl.objective.inclusion`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

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
        Advantages BGT, 0 on masked steps and in flat groups; `mixed_B`, True where a group's
        rewards differ by more than `FLAT_SPREAD` (their sum, or with spans the sum of any span);
        and the statistics `mixed_share`, `advantage_abs` (mean over real steps of mixed groups),
        `advantage_max`, `advantage_clipped` (share of those steps that the clip changed).

    Raises:
        ValueError: a weight names no reward, a span is not in `actions.spans`, or ranks of a sum
            are asked for while a reward is confined to a span (ranks do not add up over spans).
    """
    _check_names(rewards, weights, cfg, spans, actions)
    mask_BGT = actions.mask_BGT
    values_RBG = rewards.values_RBG.to(mask_BGT.device)
    real_BG = mask_BGT.any(dim=-1)
    share_BG = torch.ones_like(values_RBG[0]) if actions.share_BG is None else actions.share_BG
    terms = [
        _Term(name, weights[name], spans.get(name, WHOLE), _Values(values_BG, judged_BG, share_BG))
        for name, values_BG in zip(rewards.names, values_RBG, strict=True)
        if weights.get(name, 0.0) != 0.0
        for judged_BG in [real_BG & ~values_BG.isnan()]
    ]
    combine = _of_sum if cfg.normalise is Normalise.sum else _of_each

    def on_steps(cfg: AdvantageConfig) -> tuple[Tensor, Tensor]:
        parts, mixed_B = combine(terms, cfg, share_BG)
        sum_BGT = torch.zeros_like(mask_BGT, dtype=share_BG.dtype)
        for scope, part_BG in parts.items():
            where_BGT = mask_BGT if scope == WHOLE else mask_BGT & actions.spans[scope].bool()
            sum_BGT = sum_BGT + part_BG.unsqueeze(-1) * where_BGT
        weight_BG1 = _mean_one(share_BG, real_BG).unsqueeze(-1)
        return sum_BGT * weight_BG1 * mixed_B.view(-1, 1, 1), mixed_B

    advantages_BGT, mixed_B = on_steps(cfg)
    free_BGT, _ = on_steps(replace(cfg, clip=math.inf))
    return advantages_BGT, mixed_B, _statistics(advantages_BGT, free_BGT, mask_BGT, mixed_B)


def moments(
    values_BG: Tensor, valid_BG: Tensor, share_BG: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean and unbiased standard deviation of each group's valid values, both B1.

    The deviation of fewer than two values is 0; so is the mean of none.

    Args:
        values_BG: any numbers where valid.
        valid_BG: which values count.
        share_BG: weights of the values, up to a factor a group; None = all alike.
    """
    count_B1 = valid_BG.sum(dim=-1, keepdim=True)
    weight_BG = valid_BG.to(values_BG.dtype)
    if share_BG is not None:
        weight_BG = _mean_one(share_BG, valid_BG)
    kept_BG = torch.where(valid_BG, values_BG, 0.0)
    mean_B1 = (weight_BG * kept_BG).sum(dim=-1, keepdim=True) / count_B1.clamp(min=1)
    squares_BG = weight_BG * torch.where(valid_BG, kept_BG - mean_B1, 0.0).square()
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


@dataclass(frozen=True)
class _Values:
    """One number a candidate, which of them count, and the candidates' weights."""

    values_BG: Tensor
    valid_BG: Tensor
    share_BG: Tensor

    def moments(self) -> tuple[Tensor, Tensor]:
        return moments(self.values_BG, self.valid_BG, self.share_BG)

    def centred(self) -> _Values:
        mean_B1, _ = self.moments()
        return replace(self, values_BG=torch.where(self.valid_BG, self.values_BG - mean_B1, 0.0))

    def is_mixed(self) -> Tensor:
        return is_mixed(self.values_BG, self.valid_BG)


@dataclass(frozen=True)
class _Term:
    """One reward with its weight and the span that it may steer."""

    name: str
    weight: float
    scope: str
    judged: _Values


_Parts = dict[str, Tensor]  # scope -> its share of the advantage, BG


def _of_sum(terms: list[_Term], cfg: AdvantageConfig, share_BG: Tensor) -> tuple[_Parts, Tensor]:
    """Normalise the weighted sum; the scopes share one scale.

    The scale is the largest deviation among the whole sum and the scopes' own sums: rewards of
    different scopes that cancel in the sum do not cancel on the steps.
    """
    judged_BG = torch.zeros_like(share_BG, dtype=torch.bool)
    for term in terms:
        judged_BG = judged_BG | term.judged.valid_BG
    scopes: dict[str, list[_Term]] = {}
    for term in terms:
        scopes.setdefault(term.scope, []).append(term)
    sums = {scope: _sum(own, judged_BG, share_BG) for scope, own in scopes.items()}
    every = [_sum(terms, judged_BG, share_BG), *sums.values()]
    mixed_B = torch.stack([one.is_mixed() for one in every]).any(dim=0)
    if cfg.kind in (AdvantageKind.mean, AdvantageKind.leave_one_out):
        # Linear: of the sum or of each is the same, centred over what each reward judged.
        return _of_each(terms, cfg, share_BG)[0], mixed_B
    if cfg.kind is AdvantageKind.rank:
        parts = {scope: _ranks(one) for scope, one in sums.items()}
    else:
        assert cfg.kind is AdvantageKind.zscore, cfg.kind
        std_B1 = torch.stack([one.moments()[1] for one in every]).amax(dim=0)
        scale_B1 = std_B1.clamp(min=_floor(cfg, "total"))
        parts = {scope: one.values_BG / scale_B1 for scope, one in sums.items()}
    return {scope: part_BG.clamp(-cfg.clip, cfg.clip) for scope, part_BG in parts.items()}, mixed_B


def _sum(terms: list[_Term], judged_BG: Tensor, share_BG: Tensor) -> _Values:
    """Weighted sum of centred rewards; a missing judgement adds 0."""
    total_BG = torch.zeros_like(share_BG)
    for term in terms:
        total_BG = total_BG + term.weight * term.judged.centred().values_BG
    return _Values(total_BG, judged_BG, share_BG)


def _of_each(terms: list[_Term], cfg: AdvantageConfig, share_BG: Tensor) -> tuple[_Parts, Tensor]:
    """Normalise every reward inside its group and clip it, then weigh and add."""
    parts: _Parts = {}
    mixed_B = torch.zeros_like(share_BG[:, 0], dtype=torch.bool)
    for term in terms:
        differs_B = term.judged.is_mixed()
        own_BG = _normalise(term.judged.centred(), cfg, term.name).clamp(-cfg.clip, cfg.clip)
        own_BG = term.weight * own_BG * differs_B.unsqueeze(-1)
        parts[term.scope] = parts.get(term.scope, torch.zeros_like(share_BG)) + own_BG
        mixed_B = mixed_B | differs_B
    return parts, mixed_B


def _normalise(centred: _Values, cfg: AdvantageConfig, name: str) -> Tensor:
    """Advantage BG of the centred values of one reward, before any weight."""
    if cfg.kind is AdvantageKind.rank:
        return _ranks(centred)
    if cfg.kind is AdvantageKind.zscore:
        return centred.values_BG / centred.moments()[1].clamp(min=_floor(cfg, name))
    if cfg.kind is AdvantageKind.leave_one_out:
        return centred.values_BG * _without_itself(centred)
    assert cfg.kind is AdvantageKind.mean, cfg.kind
    return centred.values_BG


def _ranks(values: _Values) -> Tensor:
    ranks = replace(values, values_BG=mid_ranks(values.values_BG, values.valid_BG)).centred()
    _, std_B1 = ranks.moments()
    # Ranks have no unit, so no floor; two unequal values already have a deviation of .7.
    return ranks.values_BG / torch.where(std_B1 > 0, std_B1, 1.0)


def _without_itself(values: _Values) -> Tensor:
    """Factor BG from r_i - mean of all to r_i - mean of the others: 1 / (1 - own share)."""
    count_B1 = values.valid_BG.sum(dim=-1, keepdim=True)
    rest_BG = count_B1 - _mean_one(values.share_BG, values.valid_BG)
    return torch.where(rest_BG > 0, count_B1 / rest_BG.clamp(min=1e-6), 1.0)


def _mean_one(share_BG: Tensor, valid_BG: Tensor) -> Tensor:
    """Weights of mean 1 over each group's valid candidates, 0 elsewhere."""
    kept_BG = torch.where(valid_BG, share_BG, 0.0)
    total_B1 = kept_BG.sum(dim=-1, keepdim=True)
    return kept_BG * valid_BG.sum(dim=-1, keepdim=True) / torch.where(total_B1 > 0, total_B1, 1.0)


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
    advantages_BGT: Tensor, free_BGT: Tensor, mask_BGT: Tensor, mixed_B: Tensor
) -> dict[str, float]:
    used_BGT = mask_BGT & mixed_B.view(-1, 1, 1)
    size_BGT = advantages_BGT.abs() * used_BGT
    clipped_BGT = (advantages_BGT != free_BGT) & used_BGT
    count = used_BGT.sum().clamp(min=1)
    return {
        "mixed_share": mixed_B.float().mean().item(),
        "advantage_abs": (size_BGT.sum() / count).item(),
        "advantage_max": size_BGT.max().item(),
        "advantage_clipped": (clipped_BGT.sum() / count).item(),
    }
