"""The shared vocabulary: moving candidates and the masked mean."""

from __future__ import annotations

import pytest
import torch

from core_rl.types import Actions, Policy, masked_mean
from tests.core_rl.toy import ToyPolicy


def test_moving_keeps_every_field() -> None:
    ids_BGT = torch.arange(8).view(2, 2, 2)
    actions = Actions(
        ids_BGT=ids_BGT,
        mask_BGT=ids_BGT % 2 == 0,
        logp_BGT=-ids_BGT.float(),
        texts=(("a", "b"), ("c", "d")),
        spans={"context": ids_BGT > 5},
    )
    moved = actions.to(torch.device("meta"))
    assert {moved.ids_BGT.device.type, moved.spans["context"].device.type} == {"meta"}
    assert moved.logp_BGT is not None and moved.logp_BGT.device.type == "meta"
    assert moved.truncated_BG is None
    assert moved.texts == actions.texts


def test_masked_mean_ignores_what_is_masked_even_if_it_is_not_a_number() -> None:
    values = torch.tensor([1.0, float("nan"), 3.0, float("inf")], requires_grad=True)
    mean = masked_mean(values, torch.tensor([True, False, True, False]))
    mean.backward()
    assert mean.item() == 2.0
    assert values.grad is not None and values.grad.tolist() == [0.5, 0.0, 0.5, 0.0]


def test_masked_mean_of_nothing_is_zero_with_a_graph() -> None:
    values = torch.ones(3, requires_grad=True)
    mean = masked_mean(values, torch.zeros(3, dtype=torch.bool))
    mean.backward()
    assert mean.item() == 0.0
    assert values.grad is not None and values.grad.tolist() == [0.0, 0.0, 0.0]


def test_a_policy_that_cannot_score_is_refused() -> None:
    class Mute(ToyPolicy):
        log_probs = Policy.log_probs

    with pytest.raises(TypeError, match=r"abstract method '?log_probs"):
        Mute()


def test_a_frozen_copy_stays_where_it_was() -> None:
    policy = ToyPolicy().train()
    frozen = policy.frozen_copy()
    assert isinstance(frozen, ToyPolicy)
    before = policy.logits.detach().clone()
    with torch.no_grad():
        policy.logits += 1
    assert torch.equal(frozen.logits, before)
    assert not frozen.logits.requires_grad and not frozen.training
