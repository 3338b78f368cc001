"""The selector in the shared loop: sampled gradients, ratios, and that it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from core_rl.config import PhaseConfig, PhaseKind
from core_rl.loss_config import AdvantageConfig, AdvantageKind, LossConfig, RatioLevel, Reduction
from core_rl.objective.advantages import group_advantages
from core_rl.objective.losses import policy_loss, reduce_steps
from core_rl.types import RewardTable
from lever.features.slate_features import SlateQuery, pca_features
from lever.model_config import LeverModelConfig
from lever.policy.selectors import MetricSelector
from tests.lever.training import train
from tests.lever.worlds import all_rewards, small_world

WORLD = small_world()
TRAIN = [SlateQuery(query, tuple(WORLD.pool_of(query).tolist())) for query in WORLD.train]
EXACT = torch.tensor(np.nan_to_num(all_rewards(WORLD, WORLD.train)), dtype=torch.float32)


def policy(scale: float = 3.0) -> MetricSelector:
    image, text = torch.tensor(WORLD.image), torch.tensor(WORLD.text)
    return MetricSelector(
        pca_features(image, text, range(60), dims=8), LeverModelConfig(scale=scale)
    )


def expected_reward(model: MetricSelector) -> torch.Tensor:
    """Exact, a query."""
    return (model.enumerate(model.encode(TRAIN)).exp() * EXACT).sum((1, 2))


def test_the_sampled_gradient_agrees_with_the_enumerated_one() -> None:
    torch.manual_seed(0)
    model = policy()
    row = int((EXACT.amax((1, 2)) - EXACT.amin((1, 2))).argmax())
    exact = torch.autograd.grad(expected_reward(model)[row], list(model.parameters()))

    queries = [TRAIN[row]] * 4000
    prompt = model.encode(queries)
    drawn = model.sample(prompt, 8)
    reward_BG = EXACT[row][drawn.ids_BGT[..., 0], drawn.ids_BGT[..., 1]]
    table = RewardTable(("soft",), reward_BG.unsqueeze(0), reward_BG)
    kind = AdvantageConfig(kind=AdvantageKind.leave_one_out)
    advantages_BGT, mixed_B, _ = group_advantages(table, {"soft": 1.0}, kind, {}, drawn)
    loss = LossConfig(ratio_level=RatioLevel.sequence_sum, reduction=Reduction.dr_grpo)
    now = model.log_probs(prompt, drawn).logp_BGT
    assert drawn.logp_BGT is not None
    learning_BGT = drawn.mask_BGT & mixed_B.view(-1, 1, 1)
    loss_BGT, stats = policy_loss(now, drawn.logp_BGT, advantages_BGT, learning_BGT, loss)
    value = reduce_steps(loss_BGT, learning_BGT, loss.reduction, max_length=2)
    assert stats["log_ratio_abs"] < 1e-5
    # The loss is a mean over the candidates of mixed groups; the flat ones have no gradient, so the
    # share of mixed groups brings it to the scale of E[r].
    sampled = torch.autograd.grad(-value * mixed_B.float().mean(), list(model.parameters()))
    one, other = (torch.cat([part.flatten() for part in parts]) for parts in (sampled, exact))
    assert torch.nn.functional.cosine_similarity(one, other, dim=0) > 0.98
    assert one.norm().item() == pytest.approx(other.norm().item(), rel=0.1)


class Ratios(Callback):
    """The log-ratio of each update."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        value = trainer.callback_metrics.get("train/log_ratio_abs")
        if value is not None:
            self.seen.append(float(value))


def test_rce_then_grpo_learns_from_the_answerer_alone(tmp_path: Path) -> None:
    L.seed_everything(0)
    model = policy()
    before, ratios = expected_reward(model).mean().item(), Ratios()
    plan = [PhaseConfig(PhaseKind.rce, steps=10), PhaseConfig(PhaseKind.grpo, steps=30)]
    train(model, WORLD, TRAIN, plan, tmp_path, callbacks=[ratios])
    assert len(ratios.seen) == 30
    # Drawn fresh for each update: the sampler and the training pass say the same.
    assert max(ratios.seen) <= 1e-4
    assert expected_reward(model).mean().item() >= before + 0.15
