"""The embedded thinker: size, determinism, tokenizer and config."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omni_rl.config import TinyConfig
from omni_rl.policy.patches import PatchSpec, patchify
from omni_rl.policy.processor import mel_features
from omni_rl.policy.tiny import (
    SPECIAL_TOKENS,
    build_feature_extractor,
    build_model,
    build_tokenizer,
)

COMPLETION = (
    "<context>a person in red waves, the voice sounds calm</context>"
    "<think>the voice sounds calm</think><answer>A</answer>"
)
CORPUS = [COMPLETION] * 30 + ["Here is a video.\nDon't count 1234 balls!  Yes."] * 5
CONFIG = TinyConfig()


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(CORPUS, 400)


def test_text_survives_the_tokenizer(tokenizer):
    for text in (COMPLETION, "  two  spaces\n\nlines\ttab ", "naive cafe: \u4eba\u7269 \U0001f600"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_tags_are_few_plain_tokens(tokenizer):
    for tag in ("<context>", "</context>", "<think>", "</think>", "<answer>", "</answer>"):
        assert len(tokenizer.tokenize(tag)) <= 3
    kept = tokenizer.decode(tokenizer.encode(COMPLETION), skip_special_tokens=True)
    assert kept == COMPLETION


def test_text_is_cut_like_qwens(tokenizer):
    cut = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("Don't <context>a 12!")
    pieces = [piece.replace("\u0120", " ") for piece, _ in cut]
    assert pieces == ["Don", "'t", " <", "context", ">a", " ", "1", "2", "!"]


def test_special_tokens_are_single_and_named(tokenizer):
    ids = [tokenizer.encode(token) for token in SPECIAL_TOKENS.values()]
    assert [len(row) for row in ids] == [1] * len(SPECIAL_TOKENS)
    assert sorted(row[0] for row in ids) == list(range(len(tokenizer) - 11, len(tokenizer)))
    for name, token in SPECIAL_TOKENS.items():
        assert getattr(tokenizer, name) == token


def test_the_chat_layout_is_qwens(tokenizer):
    chat = [
        {"role": "system", "content": "Look."},
        {
            "role": "user",
            "content": [
                {"type": "video", "video": "x"},
                {"type": "audio", "audio": "x"},
                {"type": "image", "image": "x"},
                {"type": "text", "text": "  What?\n"},
            ],
        },
    ]
    assert tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nLook.<|im_end|>\n"
        "<|im_start|>user\n<|vision_bos|><|VIDEO|><|vision_eos|><|audio_bos|><|AUDIO|><|audio_eos|>"
        "<|vision_bos|><|IMAGE|><|vision_eos|>  What?\n<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_tokenizer_is_the_same_every_time():
    # Every word once: all merges tie, and Rust's hash maps are seeded anew for each training.
    words = [" ".join(f"{a}{b}{a}{b}{c}" for a in "abcde" for b in "fghij") for c in "klmno"]
    built = {build_tokenizer(words, 400).backend_tokenizer.to_str() for _ in range(5)}
    assert len(built) == 1


def test_a_vocabulary_without_room_is_refused():
    with pytest.raises(ValueError, match=r"model\.tiny\.vocab_size=260"):
        build_tokenizer(CORPUS, 260)


def test_the_model_is_small_and_tied(tokenizer):
    model = build_model(CONFIG, tokenizer, seed=0)
    assert 1e6 < sum(p.numel() for p in model.parameters()) < 2e6
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert model.config._attn_implementation == "sdpa"
    assert not model.training


def test_the_seed_decides_and_the_global_state_stays(tokenizer):
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    first, again, other = (build_model(CONFIG, tokenizer, seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    weights = [model.state_dict() for model in (first, again, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_ids_agree_between_tokenizer_and_model(tokenizer):
    model = build_model(CONFIG, tokenizer, seed=0)
    config = model.config
    assert config.video_token_id == tokenizer.video_token_id
    assert config.image_token_id == tokenizer.image_token_id
    assert config.audio_token_id == tokenizer.audio_token_id
    assert config.vision_start_token_id == tokenizer.vision_bos_token_id
    assert config.audio_start_token_id == tokenizer.audio_bos_token_id
    assert config.get_text_config().vocab_size == len(tokenizer)
    for holder in (config, config.get_text_config(), model.generation_config):
        assert holder.pad_token_id == tokenizer.pad_token_id
    assert model.generation_config.eos_token_id == [tokenizer.eos_token_id, tokenizer.pad_token_id]


def test_a_saved_model_opens_again(tokenizer, tmp_path):
    model = build_model(CONFIG, tokenizer, seed=3)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    ids = torch.tensor([tokenizer.encode(COMPLETION)])
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, loaded(input_ids=ids).logits)


@pytest.mark.parametrize("change", [{"hidden": 64, "heads": 2}, {"hidden": 192, "layers": 2}])
def test_other_sizes_build(tokenizer, change):
    model = build_model(TinyConfig(**change), tokenizer, seed=0)
    ids = torch.tensor([tokenizer.encode("a person")])
    assert model(input_ids=ids).logits.shape == (1, ids.shape[1], len(tokenizer))


def test_mel_features_match_the_audio_tower(tokenizer):
    extractor = build_feature_extractor(CONFIG)
    assert extractor.feature_size == CONFIG.mel_bins
    assert build_model(CONFIG, tokenizer, 0).config.audio_config.num_mel_bins == CONFIG.mel_bins


def test_sounds_and_pictures_differ_from_the_start(tokenizer):
    # At the usual spread of 0.02 the differences are below one percent, and hearing comes late.
    model = build_model(CONFIG, tokenizer, seed=0)
    time_S = np.arange(16000) / 16000
    tones = [np.sin(2 * np.pi * hertz * time_S).astype(np.float32) for hertz in (200, 400)]
    features, mask = mel_features(tones, build_feature_extractor(CONFIG))
    colours = [
        np.full((2, 56, 56, 3), colour, dtype=np.uint8) for colour in ((200, 0, 0), (0, 0, 200))
    ]
    rows = [patchify(frames, PatchSpec()) for frames in colours]
    with torch.no_grad():
        heard = model.model.get_audio_features(features, mask).last_hidden_state
        seen = model.model.get_video_features(
            torch.cat([patches for patches, _ in rows]), torch.tensor([grid for _, grid in rows])
        )
    for outputs in (heard, torch.cat(seen.pooler_output)):
        first, second = outputs.chunk(2)
        assert (first - second).norm() > 0.1 * first.norm()
