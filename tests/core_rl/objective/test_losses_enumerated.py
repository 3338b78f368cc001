"""The policy loss on a policy small enough to enumerate: 2 steps of 3 options.

The second step depends on the first, so all 9 candidates, their probabilities and the gradient of
the expected reward are exact.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core_rl.loss_config import LossConfig, Objective, RatioLevel, Reduction
from core_rl.objective.losses import policy_loss, reduce_steps

REWARDS_9 = torch.tensor([0.3, -1.0, 0.0, 2.0, 0.1, 0.7, -0.4, 0.9, 1.5], dtype=torch.float64)
PATHS = torch.cartesian_prod(torch.arange(3), torch.arange(3))  # all 9 candidates, [9, 2]


def table(seed: int) -> Tensor:
    """Logits of the first step (row 0) and of the second after each first option (rows 1 to 3)."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(4, 3, generator=rng, dtype=torch.float64)


def path_log_probs(logits: Tensor) -> Tensor:
    """Log-probs of both steps of all candidates, 1 x 9 x 2."""
    logp = logits.log_softmax(-1)
    first, second = PATHS.unbind(-1)
    return torch.stack([logp[0, first], logp[1 + first, second]], dim=-1).unsqueeze(0)


def exact_gradient(logits: Tensor) -> Tensor:
    logits = logits.clone().requires_grad_()
    expected = (path_log_probs(logits).sum(-1).exp()[0] * REWARDS_9).sum()
    return torch.autograd.grad(expected, logits)[0]


def surrogate_gradient(logits: Tensor, old_logits: Tensor, cfg: LossConfig, scale: float) -> Tensor:
    """Gradient of -loss with every candidate weighted by its old probability.

    The loss averages over 9 candidates, the expectation sums: hence the factor 9.
    """
    logits = logits.clone().requires_grad_()
    old_BGT = path_log_probs(old_logits)
    old_9 = old_BGT.sum(-1).exp()[0]
    centred_9 = REWARDS_9 - (old_9 * REWARDS_9).sum()
    advantages_BGT = (9 * old_9 * centred_9).view(1, 9, 1).expand(1, 9, 2)
    logp_BGT = path_log_probs(logits)
    mask_BGT = torch.ones(1, 9, 2, dtype=torch.bool)
    loss_BGT, _ = policy_loss(logp_BGT, old_BGT, advantages_BGT, mask_BGT, cfg)
    loss = reduce_steps(loss_BGT, mask_BGT, cfg.reduction, max_length=1)
    return torch.autograd.grad(-loss * scale, logits)[0]


@pytest.mark.parametrize(
    ("cfg", "scale"),
    [
        # A sum over steps is the log-prob of the candidate; a mean over its 2 steps is half of it.
        (LossConfig(reduction=Reduction.dr_grpo), 1.0),
        (LossConfig(reduction=Reduction.dapo), 2.0),
        (LossConfig(reduction=Reduction.grpo), 2.0),
        (LossConfig(reduction=Reduction.bnpo), 2.0),
        (LossConfig(reduction=Reduction.grpo, ratio_level=RatioLevel.sequence), 2.0),
        (LossConfig(reduction=Reduction.grpo, ratio_level=RatioLevel.sequence_sum), 1.0),
        (LossConfig(reduction=Reduction.dr_grpo, objective=Objective.cispo), 1.0),
    ],
    ids=["dr_grpo", "dapo", "grpo", "bnpo", "sequence", "sequence_sum", "cispo"],
)
def test_on_policy_gradient_is_that_of_the_expected_reward(cfg: LossConfig, scale: float) -> None:
    logits = table(0)
    torch.testing.assert_close(
        surrogate_gradient(logits, logits, cfg, scale), exact_gradient(logits)
    )


def test_off_policy_the_summed_ratio_without_clipping_is_exact() -> None:
    cfg = LossConfig(
        ratio_level=RatioLevel.sequence_sum,
        reduction=Reduction.grpo,
        eps_low=1 - 1e-12,
        eps_high=1e12,
    )
    torch.testing.assert_close(
        surrogate_gradient(table(0), table(1), cfg, 1.0), exact_gradient(table(0))
    )


def test_an_enumerated_policy_sums_to_one() -> None:
    assert path_log_probs(table(0)).sum(-1).exp().sum().item() == pytest.approx(1.0)
