"""Does a step learn what the rewards say?  Rewards, advantages and update in one direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from core_rl.doctor.agreement import is_half, rows_of
from core_rl.doctor.findings import Finding, equals, finding, skipped
from core_rl.objective.rewards import WeightedReward
from core_rl.types import Actions, Group, Policy, RewardTable

AGAINST = -0.1  # correlation; rewards that are weighed one by one may agree poorly, not opposedly
LOPSIDED = 0.5  # |mean| over mean |.| of a group's advantages; 0 but for clipping, 1 for one sign
CURE_ADVANTAGE = "advantage = reward - mean of its own group, in the order of the candidates"
NOISE = 1e-6  # nats a step: below, float32 cannot tell which way log-probs moved


def advantage_findings(group: Group, has_spans: bool = False) -> list[Finding]:
    """Check that better candidates of a group have the larger advantages, and that those balance.

    Args:
        group: judged candidates; groups without contrast do not count.
        has_spans: rewards steer parts of a candidate, so that the balance need not hold.
    """
    check = "signal/advantage_agrees"
    mask_BGT = group.actions.mask_BGT.to(group.advantages_BGT.device)
    steps_BG = mask_BGT.sum(-1)
    advantage_BG = (group.advantages_BGT * mask_BGT).sum(-1) / steps_BG.clamp(min=1)
    total_BG = group.rewards.total_BG.to(advantage_BG.device)
    mixed_B = group.mixed_B.to(advantage_BG.device) & ~total_BG.isnan().any(-1)
    mixed_B = mixed_B & (steps_BG > 0).all(-1)
    if not bool(mixed_B.any()):
        return [skipped(check, "no group has contrast")]
    centred = [
        values[mixed_B] - values[mixed_B].mean(-1, keepdim=True)
        for values in (advantage_BG.float(), total_BG.float())
    ]
    size = advantage_BG[mixed_B].abs().mean(-1).clamp(min=1e-9)
    lopsided = float((advantage_BG[mixed_B].mean(-1).abs() / size).max())
    product = float((centred[0] * centred[1]).sum())
    scale = float(centred[0].norm() * centred[1].norm())
    agreement = product / scale if scale > 0 else 0.0
    return [
        finding(
            check,
            agreement,
            f">= {AGAINST:g}",
            agreement >= AGAINST,
            "better candidates have the smaller advantages: a sign is flipped, or rewards and "
            "candidates are out of order",
            CURE_ADVANTAGE,
        ),
        finding(
            "signal/advantage_balance",
            lopsided,
            f"<= {LOPSIDED:g}",
            lopsided <= LOPSIDED or has_spans,
            "advantages of a group do not balance: rewards are centred over the batch and not "
            "within the group, so easy questions teach that everything is good",
            CURE_ADVANTAGE,
        ),
    ]


@torch.no_grad()
def direction_findings(
    policy: Policy, group: Group, mask_BGT: Tensor, temperature: float
) -> list[Finding]:
    """Check that a step made what was rewarded more probable.

    Args:
        policy: after one optimiser step on exactly this group.
        group: with the log-probs from before that step.
        mask_BGT: True on the steps that were learned from.
        temperature: at which its candidates were drawn.
    """
    check = "signal/moves_to_reward"
    old_BGT = group.actions.logp_BGT
    if old_BGT is None or not bool(group.mixed_B.any()):
        return [skipped(check, "no group has contrast")]
    if is_half(policy):
        return [skipped(check, "half precision is too coarse for a single step")]
    now = policy.log_probs(policy.encode(group.queries), group.actions, temperature).logp_BGT
    learning_BGT = mask_BGT & group.mixed_B.view(-1, 1, 1)
    weighed_BGT = group.advantages_BGT.to(now) * (now - old_BGT)
    moved = float(
        torch.where(learning_BGT, weighed_BGT, 0.0).sum() / learning_BGT.sum().clamp(min=1)
    )
    return [
        finding(
            check,
            moved,
            f"> -{NOISE:g}",
            moved > -NOISE,
            "the step made worse candidates more probable: the loss or the optimiser has the wrong "
            "sign, advantages belong to other candidates, or trainer.lr is far too large",
            "minimise -advantage * log-prob; otherwise lower trainer.lr",
        )
    ]


def reward_findings(reward: WeightedReward, group: Group) -> list[Finding]:
    """Check that a query gets the same rewards in the batch and alone.

    A reward that reads the batch's first solution, or answers in another order, differs.  One that
    differs from call to call cannot be checked like this.

    Args:
        reward: that judged the group.
        group: of at least two queries.
    """
    check = "reward/alone"
    last = len(group.queries) - 1
    if last < 1 or group.rewards.names != tuple(reward.functions):
        return [skipped(check, "needs two queries judged together")]
    alone = reward.score(group.queries[last:], _with_texts(group.actions, last))
    off = _differ(group.rewards, alone, last)
    if off and _differ(group.rewards, reward.score(group.queries, group.actions), None):
        return [skipped(check, f"{', '.join(off)} differ from call to call")]
    return [
        equals(
            check,
            len(off),
            0,
            f"{', '.join(off)} judge a query differently in the batch and alone: the first "
            "record's solution or type is used for all, or values come in another order",
            "return values[b][g] for query b and candidate g, each from its own record",
        )
    ]


def _differ(one: RewardTable, other: RewardTable, query: int | None) -> list[str]:
    names = []
    for name, values_BG, again_BG in zip(one.names, one.values_RBG, other.values_RBG, strict=True):
        own_BG: Tensor = values_BG if query is None else values_BG[query : query + 1]
        if not torch.allclose(own_BG.cpu(), again_BG.cpu(), atol=1e-5, equal_nan=True):
            names.append(name)
    return names


def _with_texts(actions: Actions, query: int) -> Actions:
    rows = slice(query, query + 1)
    texts: Sequence[tuple[str, ...]] = actions.texts[rows]
    spans = {name: span[rows] for name, span in actions.spans.items()}
    return replace(rows_of(actions, rows), texts=tuple(texts), spans=spans)
