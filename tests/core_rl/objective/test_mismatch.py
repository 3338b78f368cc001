from __future__ import annotations

import math

import pytest
import torch

from core_rl.loss_config import LossConfig, MismatchConfig, MismatchLevel, OverCap
from core_rl.objective.losses import policy_loss
from core_rl.objective.mismatch import mismatch_weights

POLICY = torch.log(torch.tensor([[[0.6, 0.5, 0.1], [0.2, 0.3, 0.9]]]))
ENGINE = torch.log(torch.tensor([[[0.3, 0.5, 0.7], [0.4, 0.1, 0.9]]]))
MASK = torch.tensor([[[True, True, False], [True, True, True]]])


@pytest.mark.parametrize(
    ("level", "over_cap", "expected"),
    [
        (MismatchLevel.token, OverCap.truncate, [[2.0, 1.0, 1.0], [0.5, 2.5, 1.0]]),
        (MismatchLevel.token, OverCap.mask, [[2.0, 1.0, 1.0], [0.5, 0.0, 1.0]]),
        # of the whole: 2 * 1 and .5 * 3 * 1, on every step
        (MismatchLevel.sequence, OverCap.truncate, [[2.0, 2.0, 1.0], [1.5, 1.5, 1.5]]),
    ],
)
def test_weights_are_ratios_up_to_the_cap(
    level: MismatchLevel, over_cap: OverCap, expected: list[list[float]]
) -> None:
    config = MismatchConfig(level=level, over_cap=over_cap, cap=2.5)
    weight, _ = mismatch_weights(POLICY, ENGINE, MASK, config)
    torch.testing.assert_close(weight, torch.tensor([expected]))


def test_statistics_count_real_steps_only() -> None:
    _, stats = mismatch_weights(POLICY, ENGINE, MASK, MismatchConfig(cap=2.5))
    logs = [math.log(2), 0, math.log(2), math.log(3), 0]
    assert stats["mismatch_mean"].item() == pytest.approx(sum(logs) / 5)
    assert stats["mismatch_max"].item() == pytest.approx(math.log(3))
    assert stats["mismatch_capped"].item() == pytest.approx(1 / 5)


def test_an_engine_that_agrees_changes_nothing() -> None:
    weight, stats = mismatch_weights(POLICY, POLICY.clone(), MASK, MismatchConfig())
    assert (weight == 1).all()
    assert stats["mismatch_max"] == 0


def test_corrected_gradient_is_that_of_the_policy_whatever_drew_the_candidates() -> None:
    """Over all options: sum mu(a) * [pi(a) / mu(a)] A grad log pi = sum pi(a) A grad log pi."""
    logits = torch.tensor([0.3, -0.2, 0.9], requires_grad=True)
    mu = torch.tensor([0.5, 0.3, 0.2])
    advantage = torch.tensor([1.0, -0.5, 0.25]).view(3, 1, 1)
    logp = torch.log_softmax(logits, 0).view(3, 1, 1)
    weight, _ = mismatch_weights(
        logp.detach(),
        mu.log().view(3, 1, 1),
        torch.ones(3, 1, 1, dtype=torch.bool),
        MismatchConfig(cap=100),
    )
    every = torch.ones(3, 1, 1, dtype=torch.bool)
    drawn_BGT, _ = policy_loss(logp, logp.detach(), advantage, every, LossConfig(), weight)
    drawn = drawn_BGT.flatten()
    estimate = torch.autograd.grad(
        sum(mu[i] * drawn[i] for i in range(3)), logits, retain_graph=True
    )[0]
    exact = torch.autograd.grad(-(logp.view(3).exp() * advantage.view(3)).sum(), logits)[0]
    torch.testing.assert_close(estimate, exact)
