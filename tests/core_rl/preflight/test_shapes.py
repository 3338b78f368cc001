"""Sizes of models without their weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from core_rl.preflight.shapes import PUBLISHED, Shapes, shapes_of


def test_a_checkpoint_is_counted_by_its_own_files(tmp_path: Path) -> None:
    config = Qwen2Config(
        vocab_size=101,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = Qwen2ForCausalLM(config)
    model.save_pretrained(tmp_path)
    found = shapes_of({"path": str(tmp_path)})
    assert found is not None
    assert found.language == sum(p.numel() for p in model.parameters())
    assert (found.layers, found.query_width, found.kv_width, found.vocabulary) == (3, 32, 16, 101)


def test_towers_are_told_apart_and_what_is_not_loaded_is_left_out(tmp_path: Path) -> None:
    tensors = {
        "thinker.model.layers.0.weight": torch.zeros(3, 5),
        "thinker.visual.blocks.0.weight": torch.zeros(7),
        "thinker.audio_tower.conv1.weight": torch.zeros(2),
        "talker.model.weight": torch.zeros(11),
        "token2wav.weight": torch.zeros(13),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    assert shapes_of({"path": str(tmp_path)}) == Shapes(15, towers=9)
    (tmp_path / "config.json").write_text(json.dumps({"thinker_config": {"text_config": {}}}))
    assert shapes_of({"path": str(tmp_path)}) == Shapes(15, towers=9)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_are_those_of_the_real_class(name: str) -> None:
    found = PUBLISHED[name]
    config = Qwen2_5OmniThinkerConfig(
        text_config={
            "hidden_size": found.hidden,
            "intermediate_size": found.intermediate,
            "num_hidden_layers": found.layers,
            "num_attention_heads": found.heads,
            "num_key_value_heads": found.kv_heads,
            "vocab_size": found.vocabulary,
        },
        vision_config={"hidden_size": 1280, "num_heads": 16, "out_hidden_size": found.hidden},
        audio_config={"output_dim": found.hidden},
    )
    with torch.device("meta"):
        model = Qwen2_5OmniThinkerForConditionalGeneration(config)
    decoder = sum(p.numel() for p in model.get_decoder().parameters())
    language = decoder + model.get_output_embeddings().weight.numel()
    assert found.language == language
    assert found.towers == sum(p.numel() for p in model.parameters()) - language


def test_a_name_or_the_settings_tell_what_files_do_not() -> None:
    assert shapes_of({"path": "somebody/some-0.5B-Instruct"}) == Shapes(500_000_000)
    assert shapes_of({"path": "somebody/some-model"}) is None
    assert shapes_of({"path": None}) is None
    tiny = {
        "hidden": 8,
        "intermediate": 12,
        "layers": 2,
        "heads": 2,
        "kv_heads": 1,
        "vocab_size": 10,
    }
    found = shapes_of({"path": None, "tiny": tiny})
    assert found is not None and (found.layers, found.head_width) == (2, 4)


def test_adapters_are_counted_by_hand() -> None:
    shapes = Shapes(1, layers=2, hidden=8, intermediate=12, heads=2, kv_heads=1, head_width=4)
    assert shapes.adapters(3, ["q_proj", "v_proj"]) == 3 * 2 * ((8 + 8) + (8 + 4))
