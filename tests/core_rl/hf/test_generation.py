"""Generation mode, caches and decoding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from core_rl.hf.generation import (
    cache_name,
    generation_mode,
    last_logits_only,
    log_softmax_masked,
)
from core_rl.hf.recompute import checkpoint_activations
from tests.core_rl.hf.lost_cache import checkpointed
from tests.core_rl.hf.text_policy import QUERIES, build_model, build_policy


def flags(model: nn.Module) -> list[tuple[bool, bool]]:
    return [
        (module.training, getattr(module, "gradient_checkpointing", False))
        for module in model.modules()
    ]


def unlike_modes() -> nn.Module:
    """A model in train mode with parts in eval mode, and checkpointing in one layer of two."""
    model = build_model()
    checkpoint_activations(model)
    model.train()
    layers = model.model.layers
    layers[0].eval()
    layers[1].gradient_checkpointing = False
    layers[1].mlp.eval()
    return model


# -- generation mode -----------------------------------------------------------------------------


def test_inside_everything_is_off() -> None:
    model = unlike_modes()
    with generation_mode(model):
        assert set(flags(model)) == {(False, False)}
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


def test_every_flag_comes_back_as_it_was() -> None:
    model = unlike_modes()
    before = flags(model)
    assert len(set(before)) == 4  # all four mixtures of the two flags
    with generation_mode(model), generation_mode(model):
        pass
    assert flags(model) == before


def test_flags_come_back_after_an_error() -> None:
    model = unlike_modes()
    before = flags(model)
    with pytest.raises(RuntimeError, match="out of memory"), generation_mode(model):
        raise RuntimeError("out of memory")
    assert flags(model) == before
    assert torch.is_grad_enabled()


def test_the_arguments_of_checkpointing_stay() -> None:
    """Switching it off and on through the model's own methods would lose `use_reentrant`."""
    model = build_model()
    checkpoint_activations(model)
    model.train()
    functions = [layer._gradient_checkpointing_func for layer in model.model.layers]
    with generation_mode(model):
        pass
    assert [layer._gradient_checkpointing_func for layer in model.model.layers] == functions


# -- the bug that generation mode keeps away -----------------------------------------------------


@torch.no_grad()
def generate_and_rescore(model: nn.Module, mask_BP: torch.Tensor, ids_BP: torch.Tensor) -> tuple:
    """Largest gap between `generate`'s own logits and one teacher-forced pass, by token."""
    out = model.generate(
        input_ids=ids_BP,
        attention_mask=mask_BP,
        max_new_tokens=8,
        do_sample=False,
        pad_token_id=257,
        output_logits=True,
        return_dict_in_generate=True,
    )
    drawn = torch.stack(out.logits, 1).log_softmax(-1)
    steps = drawn.shape[1]
    model.eval()
    full = model(input_ids=out.sequences, use_cache=False).logits[:, -steps - 1 : -1]
    gap_BT = (drawn - full.log_softmax(-1)).abs().amax(-1)
    return gap_BT[:, 0].max().item(), gap_BT[:, 1:].max().item(), out.get(cache_name(model))


def test_plain_generate_loses_its_cache_in_train_mode_with_checkpointing() -> None:
    """A known fault of transformers 4.53 to 5.23: after the first token the prompt is forgotten.

    It shows that the parity tests of the policy can fail.
    """
    ids_BP = torch.arange(40, 52).unsqueeze(0)
    mask_BP = torch.ones_like(ids_BP)
    model = build_model()
    first, rest, cache = generate_and_rescore(model.eval(), mask_BP, ids_BP)
    assert max(first, rest) < 1e-4
    assert cache.get_seq_length() == 12 + 8 - 1

    first, rest, _ = generate_and_rescore(checkpointed(model).train(), mask_BP, ids_BP)
    assert first < 1e-4  # the first token still sees the prompt, which makes the fault hard to see
    assert rest > 0.1


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_sampling_in_that_state_is_sound(family: str) -> None:
    policy = build_policy(family)
    checkpoint_activations(policy.model)
    policy.train()
    assert policy.model.training  # as in a Lightning training step
    before = flags(policy.model)
    actions = policy.sample(policy.encode(QUERIES), 4)
    assert flags(policy.model) == before
    with torch.no_grad():
        scored = policy.log_probs(policy.encode(QUERIES), actions)
    torch.testing.assert_close(scored.logp_BGT, actions.logp_BGT, atol=1e-4, rtol=0)


# -- parts ---------------------------------------------------------------------------------------


def test_the_head_reads_the_last_position_alone() -> None:
    model = build_model().eval()
    ids_BP = torch.arange(10).view(2, 5)
    with torch.no_grad():
        wanted = model(input_ids=ids_BP).logits[:, -1:]
        with last_logits_only(model):
            got = model(input_ids=ids_BP).logits
        again = model(input_ids=ids_BP).logits
    torch.testing.assert_close(got, wanted)
    assert again.shape[1] == 5


def test_the_hook_on_the_head_goes_away_after_an_error() -> None:
    model = build_model()
    with pytest.raises(KeyError), last_logits_only(model):
        raise KeyError
    assert model(input_ids=torch.arange(5).view(1, 5)).logits.shape[1] == 5


def test_log_probs_are_of_scaled_logits_without_the_suppressed() -> None:
    logits = torch.tensor([1.0, 2.0, 5.0])
    got = log_softmax_masked(logits, 0.5, torch.tensor([2]))
    wanted = torch.tensor([2.0, 4.0]).log_softmax(-1)
    torch.testing.assert_close(got[:2], wanted)
    assert got[2] == float("-inf")
    torch.testing.assert_close(log_softmax_masked(logits, 1.0, None), logits.log_softmax(-1))


def test_log_probs_are_float32_whatever_the_model() -> None:
    assert (
        log_softmax_masked(torch.zeros(3, dtype=torch.bfloat16), 1.0, None).dtype is torch.float32
    )


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_drawing_from_weights_that_are_not_finite_names_the_cause(
    shared: bool, fused: bool
) -> None:
    policy = build_policy(shared_prompt=shared, fused_decode=fused)
    with torch.no_grad():
        policy.model.model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite: weights are not finite"):
        policy.sample(policy.encode(QUERIES), 2)
