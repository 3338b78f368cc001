"""Decoding over gathered weights, against the model's own layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core_rl.hf.fused_decoder import FusedDecoder, pairs_side_by_side
from core_rl.types import Actions
from tests.core_rl.hf.text_policy import (
    QUERIES,
    TextPolicy,
    build_model,
    build_policy,
    ragged,
    with_adapters,
)


def drawn(policy: TextPolicy, fused: bool, temperature: float) -> Actions:
    policy.fused_decode = fused
    torch.manual_seed(3)
    return policy.sample(policy.encode(QUERIES), 6, temperature)


@pytest.mark.parametrize("family", ["qwen2", "llama"])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_the_same_tokens_at_the_same_seed(family: str, temperature: float) -> None:
    policy = build_policy(family).train()
    fused, plain = (drawn(policy, way, temperature) for way in (True, False))
    assert ragged(plain)  # rows leave at different steps
    assert torch.equal(fused.ids_BGT, plain.ids_BGT)
    assert torch.equal(fused.mask_BGT, plain.mask_BGT)
    torch.testing.assert_close(fused.logp_BGT, plain.logp_BGT, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"tie_word_embeddings": True},
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
    ],
    ids=["tied", "no-groups", "one-head", "theta", "scaled"],
)
def test_variants_of_the_family(changes: dict[str, Any]) -> None:
    policy = build_policy(model=build_model(**changes))
    _spread_norms(policy.model)
    assert FusedDecoder.fits(policy.model.get_decoder(), policy.model.get_output_embeddings())
    fused, plain = (drawn(policy, way, 1.0) for way in (True, False))
    assert torch.equal(fused.ids_BGT, plain.ids_BGT)
    torch.testing.assert_close(fused.logp_BGT, plain.logp_BGT, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [{"target_modules": ["embed_tokens"]}, {"layers_to_transform": [1]}],
    ids=["embedding", "last layer"],
)
def test_adapted_models_decode_through_their_own_layers(changes: dict[str, Any]) -> None:
    model = with_adapters(build_model(), **changes)
    assert not FusedDecoder.fits(model.get_decoder(), model.get_output_embeddings())
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.3)
    policy = build_policy(model=model)
    actions = drawn(policy, True, 1.0)
    scored = policy.log_probs(policy.encode(QUERIES), actions).logp_BGT
    torch.testing.assert_close(actions.logp_BGT, scored, atol=1e-4, rtol=0)


def test_it_follows_the_weights() -> None:
    policy = build_policy()
    before = drawn(policy, True, 0.0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    fused, plain = (drawn(policy, way, 0.0) for way in (True, False))
    assert torch.equal(fused.ids_BGT, plain.ids_BGT)
    assert not torch.equal(fused.ids_BGT, before.ids_BGT)


def test_what_does_not_fit() -> None:
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(
        build_model(), peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    )
    grown = build_model(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
    for model in (adapted, grown, build_model().bfloat16(), build_model(hidden_act="gelu")):
        assert not FusedDecoder.fits(model.get_decoder(), model.get_output_embeddings())
    fits = build_model()
    assert FusedDecoder.fits(fits.get_decoder(), fits.get_output_embeddings())
    assert not FusedDecoder.fits(fits.get_decoder(), nn.Sequential(fits.lm_head))
    with torch.autocast("cpu", torch.bfloat16):
        assert not FusedDecoder.fits(fits.get_decoder(), fits.get_output_embeddings())


def test_a_model_that_does_not_fit_is_decoded_by_its_own_layers() -> None:
    policy = build_policy(model=build_model(hidden_act="gelu"))
    fused, plain = (drawn(policy, way, 1.0) for way in (True, False))
    assert torch.equal(fused.ids_BGT, plain.ids_BGT)


def test_rotary_partners_become_neighbours() -> None:
    assert pairs_side_by_side(8).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


def _spread_norms(model: nn.Module) -> None:
    """Weights of a norm other than 1, or folding them in would show nothing."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(torch.linspace(0.5, 1.5, parameter.numel()))


def test_norms_are_spread() -> None:
    model = build_model()
    _spread_norms(model)
    weight: Tensor = model.model.norm.weight
    assert weight.min() == 0.5 and weight.max() == 1.5
