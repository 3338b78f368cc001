"""Prompts that are encoded once: how often the model runs, on what, and when it cannot."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn

from core_rl.hf.recompute import checkpoint_activations
from core_rl.hf.shared_attention import SharingUnsupported
from core_rl.hf.shared_prompt import encode_prompt, has_plain_head, why_not_shared
from core_rl.types import Actions
from tests.core_rl.hf.text_policy import QUERIES, TextPolicy, build_model, build_policy


def tokens_run(model: nn.Module) -> list[int]:
    """Numbers of tokens that the first layer is fed from now on, a pass each."""
    found: list[int] = []

    def note(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        found.append(hidden.shape[0] * hidden.shape[1])

    model.get_decoder().layers[0].register_forward_pre_hook(note, with_kwargs=True)
    return found


def test_a_step_runs_each_prompt_once_and_completion_tokens_alone() -> None:
    policy = build_policy(fused_decode=False).train()
    lengths = [len(query) for query in QUERIES]
    run = tokens_run(policy.model)
    prompt = policy.encode(QUERIES)
    assert run == lengths
    run.clear()
    actions = policy.sample(prompt, 4)
    kept = actions.mask_BGT
    # A row that has ended is fed no more; the last token drawn is never fed.
    alive = [int(kept[..., step].sum()) for step in range(kept.shape[-1])]
    assert run == alive and alive[-1] < alive[0] == 12
    run.clear()
    policy.log_probs(prompt, actions)
    assert run == [int(kept.sum())]


def test_the_last_layer_of_a_prompt_runs_no_further_than_its_keys() -> None:
    policy = build_policy()
    last = policy.model.model.layers[-1]
    ran: list[str] = []
    last.self_attn.register_forward_pre_hook(lambda *_: ran.append("attention"))
    last.mlp.register_forward_pre_hook(lambda *_: ran.append("mlp"))
    policy.encode(QUERIES[:1])
    assert ran == ["attention"]


def test_candidates_without_a_token_score_nothing_and_pass_a_gradient_of_zero() -> None:
    policy = build_policy().train()
    empty = Actions(torch.zeros(1, 2, 3, dtype=torch.long), torch.zeros(1, 2, 3).bool())
    logp = policy.log_probs(policy.encode(QUERIES[:1]), empty).logp_BGT
    assert logp.tolist() == [[[0.0] * 3] * 2]
    logp.sum().backward()
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in policy.parameters())


def test_a_prompt_of_one_token() -> None:
    policy = build_policy().train()
    actions = policy.sample(policy.encode(["a"]), 5)
    shared = policy.log_probs(policy.encode(["a"]), actions).logp_BGT
    policy.shared_prompt = False
    copies = policy.log_probs(policy.encode(["a"]), actions).logp_BGT
    torch.testing.assert_close(shared, copies, atol=1e-5, rtol=0)
    torch.testing.assert_close(shared, actions.logp_BGT, atol=1e-4, rtol=0)


# -- where it cannot hold ------------------------------------------------------------------------


def checkpointing() -> TextPolicy:
    policy = build_policy()
    checkpoint_activations(policy.model)
    return policy.train()


def windowed() -> TextPolicy:
    model = build_model(use_sliding_window=True, sliding_window=4, max_window_layers=0)
    return build_policy(model=model).train()


def softcapped() -> TextPolicy:
    policy = build_policy().train()
    policy.model.config.final_logit_softcapping = 30.0
    return policy


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (checkpointing, "checkpointed"),
        (windowed, "sliding_attention"),
        (softcapped, "head"),
    ],
)
def test_it_falls_back_by_itself_and_says_so_once(
    policy, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    policy = policy()
    with caplog.at_level(logging.INFO, logger="core_rl.hf.policy"):
        prompts = [policy.encode(QUERIES) for _ in range(3)]
    assert all(prompt.prefixes is None for prompt in prompts)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1 and says in lines[0]
    actions = policy.sample(prompts[0], 3)
    scored = policy.log_probs(prompts[0], actions).logp_BGT
    torch.testing.assert_close(scored, actions.logp_BGT, atol=1e-4, rtol=0)
    assert scored.requires_grad


def test_a_prompt_that_stays_padded_by_itself_is_refused() -> None:
    policy = build_policy()
    inputs, following = policy._build(["abc"])
    inputs["attention_mask"][0, 0] = 0
    with pytest.raises(SharingUnsupported, match="padded"):
        encode_prompt(policy.model, inputs, following)


def test_what_a_model_must_have() -> None:
    model = build_model()
    assert why_not_shared(model) is None
    assert has_plain_head(model)
