"""The embedded thinker: the real Qwen2.5-Omni class and a byte-level tokenizer, 1-2 M parameters.

It is made from a config and a seed, without downloads, and can be trained on a CPU.  The tokenizer
splits text as Qwen's does and has its special tokens and chat layout; vocabulary and sizes differ.
`omni_rl.policy.prompts` makes the inputs of both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

from omni_rl.config import TinyConfig

# Attribute of the tokenizer -> token, in the order of Qwen2.5-Omni's ids.
TINY_VERSION = 1  # raise when the untrained thinker or its tokens change
SPECIAL_TOKENS = {
    "pad_token": "<|endoftext|>",
    "im_start_token": "<|im_start|>",
    "eos_token": "<|im_end|>",
    "audio_token": "<|AUDIO|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "vision_pad_token": "<|vision_pad|>",
    "image_token": "<|IMAGE|>",
    "video_token": "<|VIDEO|>",
}
# Turns between <|im_start|> and <|im_end|>; each media item becomes one placeholder between its
# boundary tokens, which `omni_rl.policy.prompts` expands.
CHAT_TEMPLATE = """\
{%- set media = {
    'video': '<|vision_bos|><|VIDEO|><|vision_eos|>',
    'image': '<|vision_bos|><|IMAGE|><|vision_eos|>',
    'audio': '<|audio_bos|><|AUDIO|><|audio_eos|>',
} -%}
{%- for message in messages -%}
    {{- '<|im_start|>' + message.role + '\\n' -}}
    {%- if message.content is string -%}
        {{- message.content -}}
    {%- else -%}
        {%- for item in message.content -%}
            {{- media[item.type] if item.type in media else item.text -}}
        {%- endfor -%}
    {%- endif -%}
    {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""
# Pieces into which Qwen2's tokenizer splits text before merging: contractions, words with one
# leading mark, single digits, runs of marks, line ends, spaces.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_NUM_BYTES = 256
_HEAD_DIM = 16  # of the vision and audio encoders
_PATCH = 14  # pixels, as in Qwen2.5-Omni
_WINDOW = 4 * _PATCH  # pixels of a vision attention window
_AUDIO_WINDOW = 100  # half of an audio chunk, in mel frames: 2 seconds a chunk, as in Qwen2.5-Omni
_MAX_AUDIO_SECONDS = 30  # longer sounds are cut
_CONTEXT = 32768


def build_tokenizer(corpus: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with Qwen2.5-Omni's special tokens and chat layout.

    The tags of a completion (`<context>` and so on) are plain text, as in the real vocabulary; if
    they are frequent in the corpus they become one or two tokens each.

    Args:
        corpus: texts to learn merges from; the same texts give the same tokenizer.
        vocab_size: special tokens included; the result is smaller if the corpus has fewer merges.

    Raises:
        ValueError: `vocab_size` leaves no room beside the bytes and the special tokens.
    """
    smallest = _NUM_BYTES + len(SPECIAL_TOKENS)
    if vocab_size < smallest:
        raise ValueError(
            f"model.tiny.vocab_size={vocab_size}: expected at least {smallest} "
            f"({_NUM_BYTES} bytes and {len(SPECIAL_TOKENS)} special tokens)"
        )
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer=trainer)
    bpe.add_special_tokens(list(SPECIAL_TOKENS.values()))
    named = {name: SPECIAL_TOKENS[name] for name in ("pad_token", "eos_token")}
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        **named,
        extra_special_tokens={k: v for k, v in SPECIAL_TOKENS.items() if k not in named},
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        model_max_length=_CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def build_feature_extractor(cfg: TinyConfig) -> WhisperFeatureExtractor:
    """Build the log-mel front end: 16 kHz mono to `mel_bins` features every 10 ms."""
    return WhisperFeatureExtractor(
        feature_size=cfg.mel_bins,
        sampling_rate=16000,
        hop_length=160,
        n_fft=400,
        chunk_length=_MAX_AUDIO_SECONDS,
        return_attention_mask=True,
    )


def build_model(
    cfg: TinyConfig, tokenizer: PreTrainedTokenizerBase, seed: int
) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """Build an untrained thinker for `tokenizer`; the global random state stays unchanged."""
    config = thinker_config(cfg, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5OmniThinkerForConditionalGeneration._from_config(
            config, attn_implementation="sdpa"
        )
    model.generation_config = GenerationConfig(
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
    )
    return model.eval()


def thinker_config(cfg: TinyConfig, tokenizer: PreTrainedTokenizerBase) -> Qwen2_5OmniThinkerConfig:
    """Fill the thinker's config from our sizes and the tokenizer's ids."""
    ids: dict[str, Any] = {
        name: token_id(tokenizer, token)
        for name, token in {
            "audio_token_index": "<|AUDIO|>",
            "image_token_index": "<|IMAGE|>",
            "video_token_index": "<|VIDEO|>",
            "audio_start_token_id": "<|audio_bos|>",
            "audio_end_token_id": "<|audio_eos|>",
            "vision_start_token_id": "<|vision_bos|>",
            "vision_end_token_id": "<|vision_eos|>",
        }.items()
    }
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    return Qwen2_5OmniThinkerConfig(
        text_config=_text_config(cfg, len(tokenizer)) | ends,
        vision_config=_vision_config(cfg),
        audio_config=_audio_config(cfg),
        user_token_id=tokenizer.encode("user")[0],
        tie_word_embeddings=True,
        **ids,
        **ends,
    )


def _spread(width: int) -> float:
    """Return the standard deviation of initial weights that keeps the variance of a signal.

    The usual 0.02 suits widths of thousands.  In layers this narrow it shrinks media features to a
    hundredth of the position code, and learning to perceive takes several times the steps.
    """
    return width**-0.5


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """Return the id of one token."""
    index = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(index, int), token
    return index


def _text_config(cfg: TinyConfig, vocab_size: int) -> dict[str, Any]:
    half = cfg.hidden // cfg.heads // 2
    temporal = half // 4
    height = (half - temporal) // 2
    return {
        "vocab_size": vocab_size,
        "hidden_size": cfg.hidden,
        "intermediate_size": cfg.intermediate,
        "num_hidden_layers": cfg.layers,
        "num_attention_heads": cfg.heads,
        "num_key_value_heads": cfg.kv_heads,
        "max_position_embeddings": _CONTEXT,
        "tie_word_embeddings": True,
        "initializer_range": _spread(cfg.hidden),
        # Qwen2.5-Omni's split of the rotary frequencies over time, height and width: 2 : 3 : 3.
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [temporal, height, half - temporal - height],
        },
    }


def _vision_config(cfg: TinyConfig) -> dict[str, Any]:
    return {
        "depth": cfg.vision_layers,
        "hidden_size": cfg.vision_hidden,
        "intermediate_size": 2 * cfg.vision_hidden,
        "num_heads": cfg.vision_hidden // _HEAD_DIM,
        "patch_size": _PATCH,
        "window_size": _WINDOW,
        "fullatt_block_indexes": [cfg.vision_layers - 1],
        "out_hidden_size": cfg.hidden,
        "initializer_range": _spread(cfg.vision_hidden),
    }


def _audio_config(cfg: TinyConfig) -> dict[str, Any]:
    return {
        "num_mel_bins": cfg.mel_bins,
        "encoder_layers": cfg.audio_layers,
        "encoder_attention_heads": cfg.audio_hidden // _HEAD_DIM,
        "encoder_ffn_dim": 4 * cfg.audio_hidden,
        "d_model": cfg.audio_hidden,
        "max_source_positions": _AUDIO_WINDOW,
        "n_window": _AUDIO_WINDOW,
        "output_dim": cfg.hidden,
        "initializer_range": _spread(cfg.audio_hidden),
    }
