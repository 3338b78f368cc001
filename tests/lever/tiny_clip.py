"""CLIP of the real class, with random weights and a few hundred numbers, and pictures for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast

from lever.data.sources import Item
from lever.data.vqa_files import Question

WORDS = ["[PAD]", "[BOS]", "[EOS]", "[UNK]", *["what", "is", "this", "how", "many", "dogs"]]
TEXTS = ["what is this", "how many dogs", "what is this how many"]


def write_clip(path: Path) -> str:
    """Save a CLIP with random weights; return its folder."""
    torch.manual_seed(0)
    tower = {"intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": len(WORDS), "hidden_size": 16, "max_position_embeddings": 12, **tower}
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    vision = {"hidden_size": 16, "image_size": 16, "patch_size": 8, **tower}
    config = CLIPConfig(text_config={**text, **ends}, vision_config=vision, projection_dim=8)
    CLIPModel(config).save_pretrained(path)
    words = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 1), ("[EOS]", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]"
    ).save_pretrained(path)
    CLIPImageProcessorPil(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    ).save_pretrained(path)
    return str(path)


def write_pictures(path: Path) -> list[Path]:
    """Save a random picture for each of `TEXTS`."""
    rng = np.random.default_rng(0)
    files = [path / f"{number}.png" for number in range(3)]
    for file in files:
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(file)
    return files


def items(pictures: list[Path]) -> list[Item]:
    return [
        Item(Question(i, i, text, ("a",)), "a", picture)
        for i, (text, picture) in enumerate(zip(TEXTS, pictures, strict=True))
    ]
