"""The reference of a model, and of one with adapters."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from core_rl.hf.policy import HFPolicy
from core_rl.hf.reference import AdapterReference, frozen_model, is_partitioned
from core_rl.types import Actions
from tests.core_rl.hf.text_policy import (
    QUERIES,
    build_model,
    build_policy,
    gradients,
    with_adapters,
)


def score(policy: HFPolicy | AdapterReference, actions: Actions) -> torch.Tensor:
    return policy.log_probs(policy.encode(QUERIES), actions).logp_BGT


@torch.no_grad()
def of(reference: AdapterReference, actions: Actions) -> torch.Tensor:
    return score(reference, actions)


def trained(policy: HFPolicy) -> None:
    """Move every adapter."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)


@pytest.fixture(params=[True, False], ids=["shared", "copies"])
def shared(request: Any) -> bool:
    return bool(request.param)


@pytest.fixture(params=["v_proj", "embed_tokens"])
def policy(request: Any, shared: bool) -> HFPolicy:
    model = with_adapters(build_model(), target_modules=[request.param])
    return build_policy(model=model, shared_prompt=shared).train()


def test_before_training_it_is_the_model_without_adapters_and_holds_nothing(
    policy: HFPolicy,
) -> None:
    bare = build_policy()
    actions = bare.sample(bare.encode(QUERIES), 3)
    reference = policy.frozen_copy()
    assert isinstance(reference, AdapterReference) and reference.state_dict() == {}
    trained(policy)
    torch.testing.assert_close(of(reference, actions), score(bare, actions), atol=1e-5, rtol=0)
    assert (score(policy, actions) - score(bare, actions)).abs().max() > 1e-2


def test_taken_later_it_is_the_policy_of_that_moment(policy: HFPolicy) -> None:
    trained(policy)
    reference = policy.frozen_copy()
    assert isinstance(reference, AdapterReference)
    actions = policy.sample(policy.encode(QUERIES), 3)
    then = score(policy, actions).detach()
    trained(policy)
    assert torch.equal(of(reference, actions), then)
    assert (score(policy, actions) - then).abs().max() > 1e-2


def test_a_pass_between_forward_and_backward_changes_no_gradient(policy: HFPolicy) -> None:
    trained(policy)
    reference = policy.frozen_copy()
    assert isinstance(reference, AdapterReference)
    actions = policy.sample(policy.encode(QUERIES), 3)
    trained(policy)
    wanted = gradients(policy, score(policy, actions).sum())
    logp_BGT = score(policy, actions)
    of(reference, actions)
    assert torch.equal(gradients(policy, logp_BGT.sum()), wanted)


def test_it_is_the_same_after_a_resume(policy: HFPolicy) -> None:
    trained(policy)
    reference = policy.frozen_copy()
    assert isinstance(reference, AdapterReference)
    actions = policy.sample(policy.encode(QUERIES), 3)
    then = of(reference, actions)
    trained(policy)
    resumed = AdapterReference(policy)
    resumed.load_state_dict(reference.state_dict())
    assert torch.equal(of(resumed, actions), then)
    resumed.load_state_dict({})  # of a phase that began with fresh adapters
    bare = build_policy()
    torch.testing.assert_close(of(resumed, actions), score(bare, actions), atol=1e-5, rtol=0)


def test_the_copy_shares_what_is_frozen_and_keeps_what_trains() -> None:
    model = build_model()
    frozen = model.get_input_embeddings().weight.requires_grad_(False)
    copied = frozen_model(model)
    assert not is_partitioned(model)
    assert copied.get_input_embeddings().weight is frozen
    assert not any(parameter.requires_grad for parameter in copied.parameters())
    own = dict(copied.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(own[name], parameter)
        assert (own[name] is parameter) == (parameter is frozen)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    assert not torch.equal(own["model.norm.weight"], model.model.norm.weight)
