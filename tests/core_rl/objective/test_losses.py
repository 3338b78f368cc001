"""Losses against numbers worked out by hand and against an enumerated policy."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core_rl.loss_config import LossConfig, Objective, RatioLevel, Reduction
from core_rl.objective.losses import (
    count_units,
    importance_ratio,
    learning_steps,
    policy_loss,
    rce_loss,
    rce_weights,
    reduce_steps,
)
from core_rl.types import Actions

SCORES_BG = torch.tensor([[0.046, 0.045, 0.037, 0.035, 0.030]])


# -- reward-weighted cross entropy ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("tau", "zscore", "expected"),
    [
        (2.0, True, [0.313, 0.290, 0.161, 0.139, 0.096]),
        (0.5, True, [0.536, 0.400, 0.038, 0.021, 0.005]),
        # Raw scores of this size give uniform weights at any temperature of the schedule.
        (2.0, False, [0.2007, 0.2006, 0.1998, 0.1996, 0.1991]),
        (0.5, False, [0.2030, 0.2026, 0.1993, 0.1986, 0.1966]),
    ],
)
def test_rce_weights_of_the_published_scores(
    tau: float, zscore: bool, expected: list[float]
) -> None:
    weights_BG = rce_weights(SCORES_BG, tau, zscore)
    torch.testing.assert_close(weights_BG, torch.tensor([expected]), atol=6e-4, rtol=0)


def test_rce_weights_leave_out_padding_and_the_unjudged() -> None:
    scores_BG = torch.tensor([[1.0, math.nan, 3.0, 9.0], [math.nan] * 4])
    valid_BG = torch.tensor([[True, True, True, False], [True] * 4])
    weights_BG = rce_weights(scores_BG, tau=1.0, zscore=False, valid_BG=valid_BG)
    # softmax over 1 and 3 alone: 1 / (1 + e^2) = .1192
    torch.testing.assert_close(
        weights_BG, torch.tensor([[0.1192, 0.0, 0.8808, 0.0], [0.0] * 4]), atol=1e-4, rtol=0
    )


def test_rce_weights_of_a_constant_group_are_uniform_not_noise() -> None:
    scores_BG = torch.tensor([[0.5, 0.5 + 4e-7, 0.5 - 4e-7, 0.5]])
    assert rce_weights(scores_BG, tau=0.5).tolist() == [[0.25] * 4]


@settings(max_examples=50, deadline=None)
@given(
    scores=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=8),
    tau=st.floats(0.1, 10),
    zscore=st.booleans(),
)
def test_rce_weights_sum_to_one_and_follow_the_order(
    scores: list[float], tau: float, zscore: bool
) -> None:
    weights = rce_weights(torch.tensor([scores]), tau, zscore)[0]
    assert weights.sum().item() == pytest.approx(1.0, abs=1e-5)
    by_score = weights[torch.tensor(scores).argsort()]
    assert (by_score.diff() >= -1e-6).all()


def test_rce_loss_by_hand() -> None:
    # Query 0: CE of its candidates .5 + .25 = .75 and 1; query 1 has weight on one of CE 2; the
    # third query has no candidate to learn from and does not count.
    logp_BGT = torch.tensor(
        [[[-0.5, -0.25], [-1.0, -9.0]], [[-2.0, -9.0], [-4.0, -9.0]], [[-1.0, -1.0]] * 2]
    )
    mask_BGT = torch.tensor([[[1, 1], [1, 0]], [[1, 0], [1, 0]], [[1, 1], [1, 1]]]).bool()
    weights_BG = torch.tensor([[0.8, 0.2], [1.0, 0.0], [0.0, 0.0]])
    total, queries = rce_loss(logp_BGT, mask_BGT, weights_BG)
    loss = total / queries
    assert loss.item() == pytest.approx((0.8 * 0.75 + 0.2 * 1.0 + 2.0) / 2)


def test_rce_gradient_pulls_the_policy_towards_the_weights() -> None:
    # One step, all options as candidates: d/dlogits of -sum_i w_i log p_i is p - w.
    logits = torch.tensor([0.3, -0.2, 1.0], requires_grad=True)
    weights_BG = rce_weights(torch.tensor([[0.0, 1.0, 0.4]]), tau=0.7)
    logp_BGT = logits.log_softmax(-1).view(1, 3, 1)
    rce_loss(logp_BGT, torch.ones(1, 3, 1, dtype=torch.bool), weights_BG)[0].backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, logits.softmax(-1).detach() - weights_BG[0])


# -- the importance ratio ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (RatioLevel.token, [[2.0, 0.5, 4.0], [3.0, 1.0, 1.0]]),
        (RatioLevel.sequence, [[4.0 ** (1 / 3)], [3.0]]),  # (2 * .5 * 4)^(1/3), then 3^(1/1)
        (RatioLevel.sequence_sum, [[4.0], [3.0]]),
    ],
)
def test_ratio_levels(level: RatioLevel, expected: list[list[float]]) -> None:
    ratio_GT = torch.tensor([[2.0, 0.5, 4.0], [3.0, 7.0, 7.0]])
    mask_BGT = torch.tensor([[[1, 1, 1], [1, 0, 0]]]).bool()
    old_BGT = torch.full((1, 2, 3), -1.5)
    ratio = importance_ratio(ratio_GT.log() - 1.5, old_BGT, mask_BGT, level)
    torch.testing.assert_close(ratio, torch.tensor([expected]))


def test_one_broken_step_cannot_make_the_ratio_infinite() -> None:
    logp_BGT = torch.tensor([[[-0.1]]])
    ratio = importance_ratio(
        logp_BGT, logp_BGT - 1e4, torch.ones(1, 1, 1, dtype=torch.bool), RatioLevel.token
    )
    assert ratio.isfinite().all()


# -- the clipped surrogate -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("advantage", "ratio", "dual", "loss", "learns"),
    [
        # A > 0: only going up is cut; eps_high .3.
        (1.0, 1.0, None, -1.0, True),
        (1.0, 1.2, None, -1.2, True),
        (1.0, 1.5, None, -1.3, False),
        (1.0, 0.5, None, -0.5, True),
        # A < 0: only going down is cut; eps_low .2.
        (-1.0, 1.0, None, 1.0, True),
        (-1.0, 0.9, None, 0.9, True),
        (-1.0, 0.5, None, 0.8, False),
        (-1.0, 5.0, None, 5.0, True),
        # Dual clip at 3: bounds the cost of A < 0 from above, touches nothing else.
        (-1.0, 5.0, 3.0, 3.0, False),
        (-1.0, 2.0, 3.0, 2.0, True),
        (-1.0, 0.5, 3.0, 0.8, False),
        (1.0, 5.0, 3.0, -1.3, False),
        (1.0, 1.2, 3.0, -1.2, True),
        # Also where it lies below 1 + eps_high.
        (1.0, 1.2, 1.1, -1.2, True),
        (-1.0, 1.2, 1.1, 1.1, False),
    ],
)
def test_clip_and_dual_clip(
    advantage: float, ratio: float, dual: float | None, loss: float, learns: bool
) -> None:
    cfg = LossConfig(eps_low=0.2, eps_high=0.3, dual_clip=dual)
    logp_BGT = torch.tensor([[[math.log(ratio)]]], requires_grad=True)
    got, stats = one_group(logp_BGT, torch.full((1, 1, 1), advantage), cfg)
    got.backward()
    assert got.item() == pytest.approx(loss, rel=1e-6)
    assert logp_BGT.grad is not None
    # Where it learns, d(-r A)/dlogp = -r A.
    assert logp_BGT.grad.item() == pytest.approx(-ratio * advantage if learns else 0.0, rel=1e-6)
    clipped = stats["clip_fraction"] + stats["dual_clip_fraction"]
    assert (clipped > 0) == (not learns)


@pytest.mark.parametrize(
    ("ratio", "coefficient"),
    [(0.1, 0.1), (1.0, 1.0), (1.25, 1.25), (9.0, 1.3)],  # only bounded from above, at 1 + .3
)
@pytest.mark.parametrize("advantage", [2.0, -2.0])
def test_cispo_weighs_every_step_and_cuts_none(
    ratio: float, coefficient: float, advantage: float
) -> None:
    cfg = LossConfig(objective=Objective.cispo, eps_high=0.3)
    logp_BGT = torch.tensor([[[-0.7]]], requires_grad=True)
    loss, _ = one_group(
        logp_BGT, torch.full((1, 1, 1), advantage), cfg, old_BGT=logp_BGT.detach() - math.log(ratio)
    )
    loss.backward()
    assert loss.item() == pytest.approx(-coefficient * advantage * -0.7, rel=1e-5)
    assert logp_BGT.grad is not None
    assert logp_BGT.grad.item() == pytest.approx(-coefficient * advantage, rel=1e-5)


def one_group(
    logp_BGT: Tensor, advantages_BGT: Tensor, cfg: LossConfig, old_BGT: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of one group of which every step is real; old log-probs are 0 unless given."""
    loss_BGT, stats = policy_loss(
        logp_BGT,
        torch.zeros_like(logp_BGT) if old_BGT is None else old_BGT,
        advantages_BGT,
        torch.ones_like(logp_BGT, dtype=torch.bool),
        cfg,
    )
    return loss_BGT.mean(), stats


# -- reductions ----------------------------------------------------------------------------------

# Group 0: candidates of 3 and 1 steps; group 1: of 2 and 0 steps (padding); group 2 is flat.
VALUES_BGT = torch.tensor(
    [
        [[1.0, 2.0, 6.0], [5.0, 99.0, 99.0]],
        [[4.0, 8.0, 99.0], [99.0, 99.0, 99.0]],
        [[50.0, 50.0, 50.0], [50.0, 50.0, 50.0]],
    ]
)
MASK_BGT = torch.tensor(
    [[[1, 1, 1], [1, 0, 0]], [[1, 1, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 1]]]
).bool()
MIXED_B = torch.tensor([True, True, False])
LEARNING_BGT = MASK_BGT & MIXED_B.view(-1, 1, 1)


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        (Reduction.grpo, (3 + 5 + 6) / 3),  # means 9/3, 5/1, 12/2 of the three real candidates
        (Reduction.bnpo, (9 + 5 + 12) / 6),
        (Reduction.dr_grpo, (9 + 5 + 12) / (3 * 10)),
        (Reduction.dapo, (9 + 5 + 12) / 6),
    ],
)
def test_reductions_by_hand(reduction: Reduction, expected: float) -> None:
    got = reduce_steps(VALUES_BGT, LEARNING_BGT, reduction, max_length=10)
    assert got.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reduction", "units"),
    [(Reduction.grpo, 3), (Reduction.bnpo, 6), (Reduction.dr_grpo, 30), (Reduction.dapo, 6)],
)
def test_flat_groups_and_padding_are_no_units(reduction: Reduction, units: int) -> None:
    assert count_units(LEARNING_BGT, reduction, max_length=10).item() == units


@pytest.mark.parametrize("reduction", list(Reduction))
def test_a_batch_without_contrast_gives_zero_with_a_graph(reduction: Reduction) -> None:
    values_BGT = VALUES_BGT.clone().requires_grad_()
    loss = reduce_steps(values_BGT, torch.zeros_like(MASK_BGT), reduction, max_length=10)
    loss.backward()
    assert loss.item() == 0.0
    assert values_BGT.grad is not None
    assert not values_BGT.grad.any()


def test_a_reduction_without_its_divisor_is_refused() -> None:
    with pytest.raises(AssertionError, match="divides by"):
        reduce_steps(VALUES_BGT, LEARNING_BGT, Reduction.dr_grpo)


def test_cut_candidates_are_left_out_only_when_told() -> None:
    cut = Actions(
        ids_BGT=torch.zeros(1, 2, 2),
        mask_BGT=torch.ones(1, 2, 2, dtype=torch.bool),
        truncated_BG=torch.tensor([[False, True]]),
    )
    mixed_B = torch.tensor([True])
    without = learning_steps(cut, mixed_B, mask_truncated=True)
    assert without.tolist() == [[[True, True], [False, False]]]
    assert learning_steps(cut, mixed_B, mask_truncated=False).all()
    assert not learning_steps(cut, ~mixed_B, mask_truncated=False).any()


# -- the whole policy loss -----------------------------------------------------------------------

EVERY_CFG = [
    LossConfig(objective=objective, ratio_level=level, reduction=reduction, dual_clip=3.0)
    for objective, level, reduction in itertools.product(Objective, RatioLevel, Reduction)
]


def label(cfg: LossConfig) -> str:
    return f"{cfg.objective.value}-{cfg.ratio_level.value}-{cfg.reduction.value}"


def random_batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs, old log-probs and advantages of the shape of `MASK_BGT`."""
    rng = torch.Generator().manual_seed(seed)
    logp_BGT = -torch.rand(3, 2, 3, generator=rng) - 0.1
    old_BGT = logp_BGT + 0.4 * torch.randn(3, 2, 3, generator=rng)
    return logp_BGT, old_BGT, torch.randn(3, 2, 3, generator=rng)


def loss_and_gradient(
    logp_BGT: Tensor, old_BGT: Tensor, advantages_BGT: Tensor, cfg: LossConfig
) -> tuple[Tensor, Tensor]:
    logp_BGT = logp_BGT.clone().requires_grad_()
    loss_BGT, _ = policy_loss(logp_BGT, old_BGT, advantages_BGT, LEARNING_BGT, cfg)
    loss = reduce_steps(loss_BGT, LEARNING_BGT, cfg.reduction, max_length=10)
    loss.backward()
    assert logp_BGT.grad is not None
    return loss.detach(), logp_BGT.grad


@pytest.mark.parametrize("cfg", EVERY_CFG, ids=label)
def test_masked_steps_and_flat_groups_never_matter(cfg: LossConfig) -> None:
    logp_BGT, old_BGT, advantages_BGT = random_batch()
    loss, gradient_BGT = loss_and_gradient(logp_BGT, old_BGT, advantages_BGT, cfg)
    idle_BGT = ~MASK_BGT | ~MIXED_B.view(-1, 1, 1)
    assert not gradient_BGT[idle_BGT].any()
    assert gradient_BGT[~idle_BGT].any()
    for garbage in (1e30, -math.inf, math.nan):
        # Advantages are made by us and are 0 there; log-probs may hold anything.
        spoilt = logp_BGT.masked_fill(~MASK_BGT, garbage), old_BGT.masked_fill(~MASK_BGT, -garbage)
        spoilt_loss, spoilt_BGT = loss_and_gradient(*spoilt, advantages_BGT, cfg)
        torch.testing.assert_close(spoilt_loss, loss)
        torch.testing.assert_close(spoilt_BGT[MASK_BGT], gradient_BGT[MASK_BGT])


@pytest.mark.parametrize("cfg", EVERY_CFG, ids=label)
def test_the_order_of_candidates_does_not_matter(cfg: LossConfig) -> None:
    logp_BGT, old_BGT, advantages_BGT = random_batch(1)

    def loss(order: list[int]) -> Tensor:
        logp, old, advantages, mask = (
            x[:, order] for x in (logp_BGT, old_BGT, advantages_BGT, MASK_BGT)
        )
        loss_BGT, _ = policy_loss(logp, old, advantages, mask, cfg)
        return reduce_steps(loss_BGT, mask, cfg.reduction, max_length=10)

    torch.testing.assert_close(loss([1, 0]), loss([0, 1]))


def test_statistics_by_hand() -> None:
    # Ratios 2, 1, .5, 1 with advantages 1, 1, -1, -1: one cut above, one below.
    logp_BGT = torch.tensor([[[2.0, 1.0], [0.5, 1.0]]]).log()
    advantages_BGT = torch.tensor([[[1.0, 1.0], [-1.0, -1.0]]])
    _, stats = one_group(logp_BGT, advantages_BGT, LossConfig())
    expected = {
        "ratio_mean": 4.5 / 4,
        "ratio_max": 2.0,
        "ratio_min": 0.5,
        "log_ratio_abs": math.log(2),
        "clip_fraction": 0.5,
        "clip_low": 0.25,
        "clip_high": 0.25,
        "dual_clip_fraction": 0.0,
    }
    assert {name: value.item() for name, value in stats.items()} == pytest.approx(expected)
    assert not any(value.requires_grad for value in stats.values())
