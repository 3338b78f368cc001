"""The shared prompt on many families of models, built from config with random weights.

make test ARGS='-m models'                    # each family, as below
python -m tests.core_rl.hf.test_families      # the table of docs/fast-step.md
"""

from __future__ import annotations

import logging
import re
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PreTrainedModel,
)

from tests.core_rl.hf.text_policy import SIZES, TextPolicy, build_policy

pytestmark = pytest.mark.models

QUESTION = ["a question of some length here"]
SHARED = "shared"
TOLERANCE = 2e-5  # nats, float32
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
}
OLD = {"n_embd": 32, "n_layer": 2, "n_head": 4}
OWN_CODE = "its layers do not use transformers' attention functions"
WINDOWS = "its layers attend in other ways"


@dataclass(frozen=True)
class Family:
    """A family and what is expected of it.

    Attributes:
        kind: transformers' `model_type`.
        said: SHARED, or words of the reason why its prompts are not shared.
        sizes: beside the common ones.
        name: of the row.
        one_pass: drawing and scoring agree; not so where a token sees those after it.
    """

    kind: str
    said: str = SHARED
    sizes: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    one_pass: bool = True

    def __str__(self) -> str:
        return self.name or self.kind


PLAIN = (
    "llama qwen2 phi olmo olmo2 granite starcoder2 stablelm gpt_neox nemotron persimmon arcee "
    "bitnet apertus biogpt lfm2 doge"
)
WITH_WIDTH = "qwen3 gemma helium ernie4_5 hunyuan_v1_dense seed_oss"
FAMILIES = [
    *map(Family, PLAIN.split()),
    *(Family(kind, sizes={"head_dim": 8}) for kind in WITH_WIDTH.split()),
    Family("mistral", sizes={"sliding_window": None}),
    Family("mixtral", sizes={"num_local_experts": 4, "sliding_window": None}),
    Family("phi3", sizes={"pad_token_id": 0}),
    Family("smollm3", sizes={"pad_token_id": 0}),
    Family("glm", sizes={"head_dim": 8, "pad_token_id": 0}),
    Family("glm4", sizes={"head_dim": 8, "pad_token_id": 0}),
    Family("gpt2", sizes=OLD | {"n_positions": 256}),
    Family("gpt_bigcode", sizes=OLD),
    Family("opt", sizes={"ffn_dim": 48, "word_embed_proj_dim": 32}),
    Family("qwen2_moe", sizes=EXPERTS | {"shared_expert_intermediate_size": 16}),
    Family("qwen3_moe", sizes=EXPERTS | {"head_dim": 8}),
    Family("olmoe", sizes={"num_experts": 4, "num_experts_per_tok": 2}),
    Family("deepseek_v2", sizes=LATENT),
    Family("deepseek_v3", sizes=LATENT),
    Family("gemma2", WINDOWS, {"head_dim": 8}),
    Family("gemma3_text", WINDOWS, {"head_dim": 8, "sliding_window": 4}),
    Family("gpt_oss", WINDOWS, {"num_local_experts": 4, "head_dim": 8, "sliding_window": 4}),
    Family("olmo3", WINDOWS),
    Family("cohere2", WINDOWS),
    Family("minimax", WINDOWS),
    Family("cohere", "its logits are more than its head's output"),
    Family("mistral", "attend to the last 8 tokens", {"sliding_window": 8}, "mistral, window"),
    Family("phimoe", "attend to the last 4", {"num_local_experts": 4, "sliding_window": 4}),
    Family("gptj", OWN_CODE, OLD | {"rotary_dim": 4}),
    Family("codegen", OWN_CODE, OLD | {"rotary_dim": 4}),
    Family("bloom", OWN_CODE, {"n_layer": 2, "n_head": 4}),
    Family(
        "gpt_neo",
        OWN_CODE,
        {"num_layers": 2, "num_heads": 4, "attention_types": [[["global"], 2]]},
    ),
    Family("xglm", OWN_CODE, {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4}),
    Family("diffllama", "do not attend once each"),
    Family("falcon", "it raises TypeError"),
    Family(
        "mpt",
        "it raises AttributeError",
        {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 256},
    ),
    Family(
        "gemma3_text",
        "log-probs would differ",
        {
            "head_dim": 8,
            "use_bidirectional_attention": True,
            "layer_types": ["full_attention"] * 2,
        },
        "gemma3, bidirectional",
        one_pass=False,
    ),
    Family("paligemma", "log-probs would differ", name="paligemma, text alone", one_pass=False),
]


def build(family: Family) -> PreTrainedModel:
    torch.manual_seed(0)
    if family.kind == "paligemma":
        tower = {"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48}
        tower |= {"num_hidden_layers": 1, "num_attention_heads": 2}
        tower |= {"image_size": 28, "patch_size": 14, "projection_dim": 32}
        text = {**SIZES, "head_dim": 8, "model_type": "gemma"}
        config = PaliGemmaConfig(
            text_config=text, vision_config=tower, projection_dim=32, image_token_index=258
        )
        model = PaliGemmaForConditionalGeneration(config)
    else:
        config = AutoConfig.for_model(family.kind, **{**SIZES, **family.sizes})
        model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.25)  # sharp, whatever a family's own start is
    return model


@dataclass(frozen=True)
class Outcome:
    """What a family gave: why prompts are not shared, and two gaps in nats."""

    reason: str
    drawn: float  # drawing against scoring
    copies: float  # scoring against scoring with copies


def outcome(family: Family) -> Outcome:
    policy: TextPolicy = build_policy(
        model=build(family), suppress_ids=[258], max_completion=6, compare=True
    )
    policy.train()
    prompt = policy.encode(QUESTION)
    assert (prompt.prefixes is None) == (not policy.shared_prompt or bool(policy._reason))
    actions = policy.sample(prompt, 3)
    scores = policy.log_probs(prompt, actions).logp_BGT
    policy.shared_prompt = False
    copied = policy.log_probs(policy.encode(QUESTION), actions).logp_BGT
    return Outcome(
        policy._reason,
        float((scores - actions.logp_BGT).abs().max()),
        float((scores - copied).abs().max()),
    )


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_a_family_shares_its_prompt_or_says_why_not(family: Family) -> None:
    found = outcome(family)
    if family.said == SHARED:
        assert found.reason == ""
    else:
        assert re.search(re.escape(family.said), found.reason), found.reason
    assert found.copies <= TOLERANCE
    assert (found.drawn <= TOLERANCE) == family.one_pass


def main() -> None:
    """Print the table."""
    logging.disable()
    sys.stdout.write("| family | prompt | drawing against scoring, nats |\n|---|---|---|\n")
    for family in FAMILIES:
        found = outcome(family)
        said = f"not shared: {found.reason}" if found.reason else "shared"
        sys.stdout.write(f"| {family} | {said} | {found.drawn:.1e} |\n")


if __name__ == "__main__":
    main()
