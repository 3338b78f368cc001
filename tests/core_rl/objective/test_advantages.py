"""Advantages against numbers worked out by hand, and what must never change them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core_rl.loss_config import AdvantageConfig, AdvantageKind, Normalise
from core_rl.objective.advantages import group_advantages, is_mixed, mid_ranks, moments
from core_rl.types import Actions, RewardTable

NAN = math.nan
EVERY_CFG = [
    AdvantageConfig(kind=kind, normalise=normalise)
    for kind in AdvantageKind
    for normalise in Normalise
]


def label(cfg: AdvantageConfig) -> str:
    return f"{cfg.kind.value}-{cfg.normalise.value}"


def table(**rewards: list[list[float]]) -> RewardTable:
    values_RBG = torch.tensor(list(rewards.values()))
    return RewardTable(tuple(rewards), values_RBG, values_RBG.nansum(0))


def one_step(num_queries: int, num_candidates: int) -> Actions:
    shape = num_queries, num_candidates, 1
    return Actions(torch.zeros(shape), torch.ones(shape, dtype=torch.bool))


def advantages(
    rewards: RewardTable, weights: dict[str, float], cfg: AdvantageConfig
) -> tuple[Tensor, Tensor]:
    """Advantages BG of one-step candidates, and which groups are mixed."""
    actions = one_step(*rewards.total_BG.shape)
    advantages_BGT, mixed_B, _ = group_advantages(rewards, weights, cfg, {}, actions)
    return advantages_BGT[..., 0], mixed_B


def close(got: Tensor, expected: list[float], atol: float = 6e-4) -> None:
    torch.testing.assert_close(got, torch.tensor(expected), atol=atol, rtol=0)


# -- each kind by hand ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # 0, 1, 1, 4: mean 1.5, squares 2.25 + .25 + .25 + 6.25 = 9, unbiased std sqrt(3).
        (AdvantageKind.zscore, [-0.8660, -0.2887, -0.2887, 1.4434]),
        (AdvantageKind.mean, [-1.5, -0.5, -0.5, 2.5]),
        (AdvantageKind.leave_one_out, [0 - 2, 1 - 5 / 3, 1 - 5 / 3, 4 - 2 / 3]),
        # Mid-ranks -1.5, 0, 0, 1.5: unbiased std sqrt(4.5 / 3) = 1.2247.
        (AdvantageKind.rank, [-1.2247, 0.0, 0.0, 1.2247]),
    ],
)
@pytest.mark.parametrize("normalise", list(Normalise))
def test_kinds(kind: AdvantageKind, normalise: Normalise, expected: list[float]) -> None:
    cfg = AdvantageConfig(kind=kind, normalise=normalise)
    got_BG, mixed_B = advantages(table(r=[[0.0, 1.0, 1.0, 4.0]]), {"r": 1.0}, cfg)
    close(got_BG[0], expected)
    assert mixed_B.tolist() == [True]


def test_z_scores_of_the_published_scores() -> None:
    cfg = AdvantageConfig(std_floor={"default": 1e-4})
    scores = table(infoscore=[[0.046, 0.045, 0.037, 0.035, 0.030]])
    got_BG, _ = advantages(scores, {"infoscore": 1.0}, cfg)
    close(got_BG[0], [1.087, 0.941, -0.235, -0.529, -1.264])


@pytest.mark.parametrize(
    ("normalise", "key"), [(Normalise.sum, "total"), (Normalise.each, "infoscore")]
)
def test_the_floor_is_per_reward(normalise: Normalise, key: str) -> None:
    # Its deviation .0068 lies under the default floor .1: advantages shrink to .074 / .1.
    scores = table(infoscore=[[0.046, 0.045, 0.037, 0.035, 0.030]])
    floored = AdvantageConfig(normalise=normalise, std_floor={"default": 0.1})
    close(advantages(scores, {"infoscore": 1.0}, floored)[0][0, :1], [0.074])
    own = AdvantageConfig(normalise=normalise, std_floor={"default": 0.1, key: 0.001})
    close(advantages(scores, {"infoscore": 1.0}, own)[0][0, :1], [1.087])


def test_a_floor_that_is_not_given_is_asked_for() -> None:
    cfg = AdvantageConfig(std_floor={"other": 0.1})
    with pytest.raises(ValueError, match="no floor for 'total'"):
        advantages(table(r=[[0.0, 1.0]]), {"r": 1.0}, cfg)


def test_one_of_three_that_differs_gets_the_familiar_number() -> None:
    got_BG, _ = advantages(table(r=[[0.0, 0.0, 1.0]]), {"r": 1.0}, AdvantageConfig())
    close(got_BG[0], [-0.5774, -0.5774, 1.1547])


def test_the_clip_bounds_both_sides() -> None:
    cfg = AdvantageConfig(kind=AdvantageKind.mean, clip=5.0)
    actions = one_step(1, 2)
    advantages_BGT, _, stats = group_advantages(
        table(r=[[-30.0, 30.0]]), {"r": 1.0}, cfg, {}, actions
    )
    assert advantages_BGT.flatten().tolist() == [-5.0, 5.0]
    assert stats == {
        "mixed_share": 1.0,
        "advantage_abs": 5.0,
        "advantage_max": 5.0,
        "advantage_clipped": 1.0,
    }


def test_the_clip_bounds_each_reward_before_its_weight() -> None:
    """A lone winner of eight with all four rewards has 4 * 7 / sqrt(8) = 9.9."""
    lone = [[1.0] + [0.0] * 7]
    rewards = table(a=lone, b=lone)
    cfg = AdvantageConfig(normalise=Normalise.each)
    got_BG, _ = advantages(rewards, {"a": 1.0, "b": 3.0}, cfg)
    assert got_BG[0, 0].item() == pytest.approx(4 * 7 / math.sqrt(8))
    assert got_BG.sum().item() == pytest.approx(0.0, abs=1e-5)  # a cut winner would leave -4.9
    tight = AdvantageConfig(normalise=Normalise.each, clip=2.0)
    clipped_BG, _ = advantages(rewards, {"a": 1.0, "b": 3.0}, tight)
    assert clipped_BG[0, 0].item() == pytest.approx(4 * 2.0)


@pytest.mark.parametrize("normalise", list(Normalise))
def test_leave_one_out_of_a_reward_that_judged_some_counts_those(normalise: Normalise) -> None:
    """`b` judged three: its values are compared with the mean of the two others it judged."""
    rewards = table(a=[[1.0, 0.0, 0.0, 0.0]], b=[[3.0, 0.0, 0.0, NAN]])
    cfg = AdvantageConfig(kind=AdvantageKind.leave_one_out, normalise=normalise)
    got_BG, _ = advantages(rewards, {"a": 1.0, "b": 1.0}, cfg)
    close(got_BG[0], [1 + 3, -1 / 3 - 1.5, -1 / 3 - 1.5, -1 / 3])


# -- several rewards -----------------------------------------------------------------------------


def test_sum_adds_before_and_each_after_normalising() -> None:
    rewards = table(a=[[0.0, 10.0]], b=[[0.4, 0.0]])
    weights = {"a": 1.0, "b": 2.0}
    # sum: 0.8 against 10, so only `a` is heard: +-.7071, the z-score of any pair.
    close(advantages(rewards, weights, AdvantageConfig())[0][0], [-0.7071, 0.7071])
    # each: -+.7071 for `a`, +-2 * .7071 for `b`, the other way.
    each = AdvantageConfig(normalise=Normalise.each)
    close(advantages(rewards, weights, each)[0][0], [0.7071, -0.7071])


def test_each_is_mixed_when_any_weighted_reward_differs_sum_when_the_sum_does() -> None:
    # They cancel in group 0; only the unweighted one differs in group 1.
    rewards = table(
        a=[[0.0, 1.0], [1.0, 1.0]], b=[[1.0, 0.0], [1.0, 1.0]], watch=[[0.0, 0.0], [0.0, 1.0]]
    )
    weights = {"a": 1.0, "b": 1.0, "watch": 0.0}
    each = AdvantageConfig(normalise=Normalise.each)
    assert advantages(rewards, weights, each)[1].tolist() == [True, False]
    assert advantages(rewards, weights, AdvantageConfig())[1].tolist() == [False, False]


@pytest.mark.parametrize("cfg", EVERY_CFG, ids=label)
def test_what_could_not_be_judged_is_left_out(cfg: AdvantageConfig) -> None:
    # The judged three stand as if they were alone; the fourth gets nothing.
    alone_BG, _ = advantages(table(r=[[0.0, 1.0, 3.0]]), {"r": 2.0}, cfg)
    got_BG, mixed_B = advantages(table(r=[[0.0, NAN, 1.0, 3.0]]), {"r": 2.0}, cfg)
    torch.testing.assert_close(got_BG[0, [0, 2, 3]], alone_BG[0])
    assert got_BG[0, 1].item() == 0.0
    assert mixed_B.item()


@pytest.mark.parametrize("cfg", EVERY_CFG, ids=label)
def test_a_missing_judgement_is_neither_bonus_nor_penalty(cfg: AdvantageConfig) -> None:
    # All alike but for one missing judgement: no contrast, although plain sums would differ.
    rewards = table(a=[[1.0, 1.0, 1.0]], b=[[0.5, NAN, 0.5]])
    got_BG, mixed_B = advantages(rewards, {"a": 1.0, "b": 1.0}, cfg)
    assert got_BG.tolist() == [[0.0, 0.0, 0.0]]
    assert not mixed_B.any()


@pytest.mark.parametrize("cfg", EVERY_CFG, ids=label)
@pytest.mark.parametrize(
    "group",
    [
        [0.5, 0.5, 0.5, 0.5],
        [0.5, 0.5 + 4e-7, 0.5 - 4e-7, 0.5],  # what floating point leaves of a constant
        [NAN, NAN, NAN, NAN],
        [NAN, 0.7, NAN, NAN],  # one value has nothing to be compared with
    ],
)
def test_flat_groups_carry_nothing(cfg: AdvantageConfig, group: list[float]) -> None:
    got_BG, mixed_B = advantages(table(r=[group, [0.0, 0.0, 1.0, 1.0]]), {"r": 1.0}, cfg)
    assert mixed_B.tolist() == [False, True]
    assert got_BG[0].tolist() == [0.0] * 4
    assert got_BG[1].abs().min() > 0


def test_the_noise_of_one_flat_reward_is_not_heard_beside_another() -> None:
    # A floor below the noise would blow it up to advantages of 1.
    cfg = AdvantageConfig(normalise=Normalise.each, std_floor={"default": 0.1, "flat": 1e-9})
    rewards = table(flat=[[0.5, 0.5 + 4e-7, 0.5]], r=[[0.0, 0.0, 1.0]])
    got_BG, _ = advantages(rewards, {"flat": 1.0, "r": 1.0}, cfg)
    close(got_BG[0], [-0.5774, -0.5774, 1.1547])


@pytest.mark.parametrize("cfg", EVERY_CFG, ids=label)
def test_rewards_that_only_watch_change_nothing(cfg: AdvantageConfig) -> None:
    judged = {"a": [[0.0, 1.0, 0.5]]}
    alone_BG, _ = advantages(table(**judged), {"a": 1.0}, cfg)
    watched = table(**judged, watch=[[9.0, -9.0, 3.0]])
    for weights in ({"a": 1.0}, {"a": 1.0, "watch": 0.0}):
        torch.testing.assert_close(advantages(watched, weights, cfg)[0], alone_BG)


def test_without_any_weight_nothing_learns() -> None:
    got_BG, mixed_B = advantages(table(r=[[0.0, 1.0]]), {"r": 0.0}, AdvantageConfig())
    assert not got_BG.any()
    assert not mixed_B.any()


# -- steps, padding and spans --------------------------------------------------------------------


def spanned_actions() -> Actions:
    """One query, two candidates of 4 and 3 steps; `context` covers the first 2, then 1 of them."""
    mask_BGT = torch.tensor([[[1, 1, 1, 1], [1, 1, 1, 0]]]).bool()
    # The span reaches into padding on purpose: the mask must win.
    context_BGT = torch.tensor([[[1, 1, 0, 0], [1, 0, 0, 1]]]).bool()
    return Actions(torch.zeros(1, 2, 4), mask_BGT, spans={"context": context_BGT})


def test_a_reward_confined_to_a_span_moves_only_its_steps() -> None:
    cfg = AdvantageConfig(kind=AdvantageKind.mean)
    rewards = table(accuracy=[[1.0, 0.0]], context=[[0.0, 4.0]])
    weights = {"accuracy": 1.0, "context": 0.5}
    got_BGT, _, _ = group_advantages(
        rewards, weights, cfg, {"context": "context"}, spanned_actions()
    )
    # accuracy +-.5 everywhere, context -+1 on its steps
    assert got_BGT.tolist() == [[[-0.5, -0.5, 0.5, 0.5], [0.5, -0.5, -0.5, 0.0]]]


def test_spans_share_the_scale_of_the_whole_sum() -> None:
    # Where both reach, the parts add up to the advantage of the unconfined sum.
    rewards = table(a=[[0.0, 1.0]], b=[[0.0, 3.0]])
    weights, cfg, actions = {"a": 1.0, "b": 1.0}, AdvantageConfig(), spanned_actions()
    confined_BGT, _, _ = group_advantages(rewards, weights, cfg, {"b": "context"}, actions)
    whole_BGT, _, _ = group_advantages(rewards, weights, cfg, {}, actions)
    both_BGT = actions.mask_BGT & actions.spans["context"]
    torch.testing.assert_close(confined_BGT[both_BGT], whole_BGT[both_BGT])


def test_rewards_of_different_spans_that_cancel_in_the_sum_still_teach() -> None:
    """The sum is flat; on the steps outside the span only `a` steers, inside both do."""
    rewards = table(a=[[1.0, 0.0]], b=[[0.0, 1.0]])
    weights, cfg = {"a": 1.0, "b": 1.0}, AdvantageConfig()
    got_BGT, mixed_B, _ = group_advantages(
        rewards, weights, cfg, {"b": "context"}, spanned_actions()
    )
    half = math.sqrt(0.5)  # z-score of one of a pair
    expected = torch.tensor([[[0, 0, half, half], [0, -half, -half, 0]]])
    torch.testing.assert_close(got_BGT, expected)
    assert mixed_B.item()
    # Inside one scope there is nothing to learn from two rewards that cancel.
    assert not group_advantages(rewards, weights, cfg, {}, spanned_actions())[1].item()


def test_rewards_that_nearly_cancel_are_not_blown_up() -> None:
    """By the deviation of the sum alone, .01 over a floor of .1, either part would be 5 or more."""
    rewards = table(a=[[1.0, 0.0]], b=[[0.0, 1.01]])
    got_BGT, _, _ = group_advantages(
        rewards, {"a": 1.0, "b": 1.0}, AdvantageConfig(), {"b": "context"}, spanned_actions()
    )
    assert got_BGT.abs().max() < 0.72


def test_padding_candidates_take_no_part() -> None:
    mask_BGT = torch.tensor([[[1], [1], [0]]]).bool()
    actions = Actions(torch.zeros(1, 3, 1), mask_BGT)
    got_BGT, mixed_B, _ = group_advantages(
        table(r=[[0.0, 1.0, 50.0]]), {"r": 1.0}, AdvantageConfig(), {}, actions
    )
    close(got_BGT.flatten(), [-0.7071, 0.7071, 0.0])
    assert mixed_B.item()


@pytest.mark.parametrize(
    ("weights", "spans", "cfg", "message"),
    [
        ({"typo": 1.0}, {}, AdvantageConfig(), "expected names of reward functions"),
        ({"r": 1.0}, {"r": "think"}, AdvantageConfig(), r"spans.r='think'.*\['context'\]"),
        (
            {"r": 1.0},
            {"r": "context"},
            AdvantageConfig(kind=AdvantageKind.rank),
            "normalise=each",
        ),
    ],
)
def test_contradictions_are_named(
    weights: dict[str, float], spans: dict[str, str], cfg: AdvantageConfig, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        group_advantages(table(r=[[0.0, 1.0]]), weights, cfg, spans, spanned_actions())


# -- properties ----------------------------------------------------------------------------------

GROUPS = st.lists(st.floats(-10, 10, width=32), min_size=2, max_size=8)


@pytest.mark.parametrize("cfg", EVERY_CFG, ids=label)
@settings(max_examples=25, deadline=None)
@given(group=GROUPS, seed=st.integers(0, 100))
def test_permuting_candidates_permutes_advantages(
    cfg: AdvantageConfig, group: list[float], seed: int
) -> None:
    order = torch.randperm(len(group), generator=torch.Generator().manual_seed(seed))
    got_BG, _ = advantages(table(r=[group]), {"r": 1.0}, cfg)
    shuffled = [group[i] for i in order.tolist()]
    got_shuffled_BG, _ = advantages(table(r=[shuffled]), {"r": 1.0}, cfg)
    torch.testing.assert_close(got_shuffled_BG[0], got_BG[0, order], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("cfg", EVERY_CFG, ids=label)
@settings(max_examples=25, deadline=None)
@given(group=GROUPS)
def test_advantages_have_mean_zero_and_follow_the_rewards(
    cfg: AdvantageConfig, group: list[float]
) -> None:
    wide = AdvantageConfig(kind=cfg.kind, normalise=cfg.normalise, clip=1e6)
    got_BG, _ = advantages(table(r=[group]), {"r": 1.0}, wide)
    assert got_BG.sum().item() == pytest.approx(0.0, abs=1e-3)
    by_reward = got_BG[0, torch.tensor(group).argsort()]
    assert (by_reward.diff() >= -1e-4).all()


# -- the parts others use ------------------------------------------------------------------------


def test_moments_of_few_values() -> None:
    values_BG = torch.tensor([[1.0, 3.0, NAN], [5.0, NAN, NAN], [NAN, NAN, NAN]])
    mean_B1, std_B1 = moments(values_BG, ~values_BG.isnan())
    assert mean_B1.flatten().tolist() == [2.0, 5.0, 0.0]
    close(std_B1.flatten(), [math.sqrt(2), 0.0, 0.0], atol=1e-6)


def test_is_mixed_looks_at_valid_values_only() -> None:
    values_BG = torch.tensor([[1.0, 1.0, 9.0], [1.0, 1.1, 9.0], [NAN, NAN, NAN]])
    valid_BG = torch.tensor([[True, True, False], [True, True, False], [False] * 3])
    assert is_mixed(values_BG, valid_BG).tolist() == [False, True, False]


def test_mid_ranks_share_ties() -> None:
    values_BG = torch.tensor([[5.0, 1.0, 5.0, 9.0, NAN]])
    assert mid_ranks(values_BG, ~values_BG.isnan()).tolist() == [[0.0, -1.5, 0.0, 1.5, 0.0]]
    noisy_BG = torch.tensor([[0.5, 0.5 + 4e-7, 1.0]])
    assert mid_ranks(noisy_BG, ~noisy_BG.isnan()).tolist() == [[-0.5, -0.5, 1.0]]
