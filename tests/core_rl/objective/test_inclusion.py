"""Draws without replacement against enumeration: expectations, and the gradient of the reward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core_rl.loss_config import AdvantageConfig, AdvantageKind, LossConfig, Reduction
from core_rl.objective.advantages import group_advantages
from core_rl.objective.inclusion import inclusion_weights
from core_rl.objective.losses import policy_loss, reduce_steps
from core_rl.types import Actions, RewardTable

OPTIONS, GROUP, DRAWS = 30, 8, 20_000
EVERY_KIND = [AdvantageKind.mean, AdvantageKind.zscore, AdvantageKind.leave_one_out]


def bandit() -> tuple[Tensor, Tensor]:
    """Logits of 30 options and their rewards, 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(OPTIONS, generator=generator)
    return logits, (torch.rand(OPTIONS, generator=generator) < 0.3).float()


def drawn(logits: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Ids of different options by Gumbel-top-k, [DRAWS, size], and the threshold of each draw."""
    noise = -(-torch.rand(DRAWS, len(logits)).log()).log()
    perturbed, ids = (logits.log_softmax(-1) + noise).topk(size + 1, dim=-1)
    return ids[:, :-1], perturbed[:, -1]


def test_weighted_sums_are_expectations_over_the_policy() -> None:
    torch.manual_seed(0)
    logits, rewards = bandit()
    ids_BG, threshold_B = drawn(logits, GROUP)
    weight_BG = inclusion_weights(logits.log_softmax(-1)[ids_BG], threshold_B)
    exact = float((logits.softmax(-1) * rewards).sum())
    found_B = (weight_BG * rewards[ids_BG]).sum(-1)
    error = float(found_B.std()) / DRAWS**0.5
    assert found_B.mean().item() == pytest.approx(exact, abs=4 * error)
    assert weight_BG.sum(-1).mean().item() == pytest.approx(1.0, abs=0.01)
    alike = rewards[ids_BG].mean().item()
    assert abs(alike - exact) > 0.1


def gradient(weighted: bool, kind: AdvantageKind) -> Tensor:
    """Gradient that the loss follows, over all draws."""
    torch.manual_seed(0)
    logits, rewards = bandit()
    ids_BG, threshold_B = drawn(logits, GROUP)
    logits.requires_grad_()
    logp_BG = logits.log_softmax(-1)[ids_BG]
    actions = Actions(
        ids_BG.unsqueeze(-1),
        torch.ones(DRAWS, GROUP, 1, dtype=torch.bool),
        logp_BG.detach().unsqueeze(-1),
        share_BG=inclusion_weights(logp_BG, threshold_B) if weighted else None,
    )
    table = RewardTable(("r",), rewards[ids_BG].unsqueeze(0), rewards[ids_BG])
    cfg = AdvantageConfig(kind=kind)
    advantages_BGT, mixed_B, _ = group_advantages(table, {"r": 1.0}, cfg, {}, actions)
    learning_BGT = actions.mask_BGT & mixed_B.view(-1, 1, 1)
    logp_BGT = logp_BG.unsqueeze(-1)
    loss_BGT, _ = policy_loss(
        logp_BGT, logp_BGT.detach(), advantages_BGT, learning_BGT, LossConfig()
    )
    loss = reduce_steps(loss_BGT, learning_BGT, Reduction.grpo)
    return torch.autograd.grad(-loss, logits)[0]


def cosine_to_the_exact_gradient(weighted: bool, kind: AdvantageKind) -> float:
    logits, rewards = bandit()
    probabilities = logits.softmax(-1)
    exact = probabilities * (rewards - (probabilities * rewards).sum())
    return float(torch.nn.functional.cosine_similarity(gradient(weighted, kind), exact, dim=0))


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_weighted_advantages_point_along_the_gradient_of_the_expected_reward(
    kind: AdvantageKind,
) -> None:
    assert cosine_to_the_exact_gradient(True, kind) > 0.98
    assert cosine_to_the_exact_gradient(False, kind) < 0.85


def test_weights_of_improbable_candidates_stay_finite() -> None:
    logp_BG = torch.tensor([[-0.01, -40.0, -90.0, -torch.inf]])
    weight_BG = inclusion_weights(logp_BG, torch.tensor([-2.0]))
    # Almost surely in; then pi / q = exp(kappa); padding has none.
    expected = [
        torch.tensor(-0.01).exp().item() / (1 - torch.tensor(-7.32).exp().item()),
        torch.tensor(-2.0).exp().item(),
        torch.tensor(-2.0).exp().item(),
        0.0,
    ]
    assert weight_BG[0].tolist() == pytest.approx(expected, rel=1e-3)


def test_a_set_that_holds_every_option_weighs_by_probability() -> None:
    logp_BG = torch.tensor([0.5, 0.3, 0.2]).log().unsqueeze(0)
    weight_BG = inclusion_weights(logp_BG, torch.tensor([-torch.inf]))
    assert weight_BG[0].tolist() == pytest.approx([0.5, 0.3, 0.2])


def test_a_store_is_no_draw_and_its_gradient_may_lower_the_expected_reward() -> None:
    """The policy mostly takes option 0, which earns most and which its store does not hold."""
    logits, rewards = torch.tensor([3.0, 0.0, -1.0]), torch.tensor([0.9, 0.5, 0.0])
    probabilities = logits.softmax(-1)
    exact = probabilities * (rewards - (probabilities * rewards).sum())
    stored = torch.tensor([1, 2])
    for share_BG in (None, probabilities[stored].unsqueeze(0)):
        actions = Actions(
            stored.view(1, 2, 1), torch.ones(1, 2, 1, dtype=torch.bool), share_BG=share_BG
        )
        table = RewardTable(("r",), rewards[stored].view(1, 1, 2), rewards[stored].view(1, 2))
        cfg = AdvantageConfig(kind=AdvantageKind.mean)
        advantages_BGT, _, _ = group_advantages(table, {"r": 1.0}, cfg, {}, actions)
        advantage = torch.zeros(3).scatter(0, stored, advantages_BGT.flatten())
        step = advantage - probabilities * advantage.sum()
        assert float(step @ exact) < 0
