"""Small causal text models with a byte tokenizer, as policies over strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from core_rl.hf.encoded_prompt import Inputs
from core_rl.hf.policy import HFPolicy
from core_rl.types import Actions

FAMILIES = {"qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}
SIZES: dict[str, Any] = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.25,  # sharp enough that no two logits tie
}
QUERIES = ["hi", "a much longer question than that", "three"]
# A quarter of the vocabulary stops, so untrained completions are ragged.
STOPS = range(0, 256, 4)
SUPPRESSED = [*range(1, 60, 4), 258]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_only = Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytes_only.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_only, eos_token="<end>", pad_token="<pad>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<media>"]})
    assert len(tokenizer) == SIZES["vocab_size"]
    return tokenizer


class TextPolicy(HFPolicy):
    """A query is a text, and so is its prompt."""

    def collate(self, queries: Sequence[str]) -> Inputs:
        return dict(self.tokenizer(list(queries), padding=True, return_tensors="pt"))


def build_model(family: str = "qwen2", seed: int = 0, **changes: Any) -> PreTrainedModel:
    torch.manual_seed(seed)
    config, model = FAMILIES[family]
    return model(config(**(SIZES | changes)))


def with_adapters(model: PreTrainedModel, **changes: Any) -> Any:
    """Freeze a model and put adapters on it that change nothing yet; skip without peft."""
    peft = pytest.importorskip("peft")
    settings: dict[str, Any] = {"r": 4, "target_modules": ["q_proj", "v_proj"]}
    return peft.get_peft_model(model, peft.LoraConfig(**(settings | changes)))


def build_policy(
    family: str = "qwen2", model: PreTrainedModel | None = None, **changes: Any
) -> TextPolicy:
    tokenizer = byte_tokenizer()
    tokenizer.padding_side = "left"
    settings: dict[str, Any] = {
        "stop_ids": [tokenizer.eos_token_id, *STOPS],
        "suppress_ids": SUPPRESSED,
        "max_completion": 9,
        "compare": False,  # tests count passes; `test_sharing_check` is about the comparison
    }
    return TextPolicy(model or build_model(family), tokenizer, **(settings | changes))


def gradients(policy: HFPolicy, loss: torch.Tensor) -> torch.Tensor:
    """All gradients of a loss in one row."""
    policy.zero_grad()
    loss.backward()
    found = [p.grad.flatten() for p in policy.parameters() if p.grad is not None]
    return torch.cat(found).clone()


def weighted_sum(logp_BGT: torch.Tensor) -> torch.Tensor:
    """A loss in which every step counts differently."""
    weights = torch.linspace(-1, 1, logp_BGT.numel()).view_as(logp_BGT)
    return (weights * logp_BGT).sum()


def ragged(actions: Actions) -> bool:
    return len(set(actions.mask_BGT.sum(-1).flatten().tolist())) > 1
