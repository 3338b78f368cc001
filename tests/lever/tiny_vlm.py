"""A tiny Qwen2.5-VL with random weights: the real class, processor and chat layout."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from lever.answerers.huggingface import PicturesOnly
from lever.answerers.templates import Shown

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|endofchunk|>",
)
CHAT = """\
{%- for message in messages -%}
    {{- '<|im_start|>' + message.role + '\\n' -}}
    {%- for part in message.content -%}
        {{- '<|vision_start|><|image_pad|><|vision_end|>' if part.type == 'image' else part.text -}}
    {%- endfor -%}
    {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CORPUS = ["user assistant Question: What is it? Short answer: a brown dog in the park"] * 20


def item(index: int) -> Shown:
    """Item `index`: a picture of its own size and an answer of one to three words."""
    if index % 5 == 4:
        return Shown(f"What is it, {index}?", "dog", None, "tags: ball, grass")
    rng = np.random.default_rng(index)
    pixels = rng.integers(0, 256, (56 + 28 * (index % 3), 56, 3), dtype=np.uint8)
    answer = ("dog", "a brown dog", "park 12")[index % 3]
    return Shown(f"What is it, {index}?", answer, Image.fromarray(pixels))


def build_tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_CORPUS, trainer=trainer)
    bpe.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens={"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
        chat_template=CHAT,
    )


@functools.cache
def tiny_vlm() -> tuple[Qwen2_5_VLForConditionalGeneration, PicturesOnly]:
    """Build model and processor; the same ones every time."""
    tokenizer = build_tokenizer()
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 4, 4]},
            "pad_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "bos_token_id": None,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 48,
            "fullatt_block_indexes": [1],
            "window_size": 56,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    with torch.no_grad():  # larger weights, so that answers differ from prompt to prompt
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(8)
    generation = model.generation_config
    assert generation is not None
    generation.eos_token_id = ids["<|im_end|>"]
    pictures = Qwen2VLImageProcessorPil(size={"shortest_edge": 784, "longest_edge": 7840})
    return model, PicturesOnly(pictures, tokenizer, chat_template=CHAT)


def save_tiny(folder: Path) -> None:
    """Write a checkpoint folder laid out as the published ones are."""
    model, processor = tiny_vlm()
    model.save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    pictures = processor.image_processor.to_dict() | {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
