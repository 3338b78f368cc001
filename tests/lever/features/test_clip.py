"""CLIP of the real class, with random weights and a few hundred numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast

from core_rl.config import PathsConfig
from lever.config import ImageEncoderConfig, ImageEncoderKind, TextEncoderConfig, TextEncoderKind
from lever.data.datasets import load_data
from lever.data.sources import Item
from lever.data.vqa_files import Question
from lever.features.clip import LiveFeatures, load_clip
from lever.features.encoders import Seen, encode_pictures, encode_questions
from lever.features.slate_features import SlateQuery
from lever.model_config import FeatureConfig, FeatureKind, LeverModelConfig, SelectorKind
from lever.policy.build import build_features, build_policy, load_weights, save_policy
from lever.policy.selectors import MetricSelector
from lever.policy.slate_policy import SlatePolicy
from tests.lever.vqa_folder import FILES, folder_config, write_vqa_folder

WORDS = ["[PAD]", "[BOS]", "[EOS]", "[UNK]", *["what", "is", "this", "how", "many", "dogs"]]
TEXTS = ["what is this", "how many dogs", "what is this how many"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("clip")
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


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    path, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    files = [path / f"{number}.png" for number in range(3)]
    for file in files:
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(file)
    return files


def items(pictures: list[Path]) -> list[Item]:
    return [
        Item(Question(i, i, text, ("a",)), "a", picture)
        for i, (text, picture) in enumerate(zip(TEXTS, pictures, strict=True))
    ]


def test_batches_do_not_change_rows(folder: str, pictures: list[Path]) -> None:
    clip = load_clip(folder)
    for embed, values in ((clip.texts, TEXTS), (clip.pictures, pictures)):
        whole, single = embed(values, 3), embed(values, 1)  # type: ignore[operator]
        assert whole.shape == (3, clip.width)
        assert torch.allclose(whole, single, atol=1e-5)
        assert torch.allclose(whole.norm(dim=-1), torch.ones(3), atol=1e-5)
        assert not whole.requires_grad


def test_a_loaded_clip_is_frozen(folder: str) -> None:
    assert not any(one.requires_grad for one in load_clip(folder).parameters())


def test_gradients_reach_the_adapters_and_nothing_else(folder: str, pictures: list[Path]) -> None:
    torch.manual_seed(0)
    features = LiveFeatures(load_clip(folder).adapted(rank=2, alpha=4), items(pictures))
    policy = MetricSelector(features, shots=1)
    # A single step has nothing chosen before it, so one of the metric's parameters is empty.
    trainable = {
        name for name, one in policy.named_parameters() if one.requires_grad and one.numel() > 0
    }
    inside = {name for name in trainable if name.startswith("features.")}
    assert inside
    assert all("lora_" in name for name in inside)
    both_towers = {name.split(".")[5] for name in inside}
    assert both_towers == {"text_model", "vision_model"}

    before = {name: one.detach().clone() for name, one in policy.named_parameters()}
    optimiser = torch.optim.SGD([one for one in policy.parameters() if one.requires_grad], lr=1.0)
    for _ in range(2):  # one half of each adapter starts at 0 and holds back the other's gradient
        optimiser.zero_grad()
        _expected(policy).backward()
        optimiser.step()
    changed = {
        name for name, one in policy.named_parameters() if not torch.equal(one, before[name])
    }
    assert changed == trainable


def test_a_frozen_copy_keeps_the_adapters_of_its_moment(folder: str, pictures: list[Path]) -> None:
    features = LiveFeatures(load_clip(folder).adapted(rank=2), items(pictures))
    policy = MetricSelector(features, shots=1)
    reference = policy.frozen_copy()
    known = reference.features.of(0, (1, 2), "pool").clone()
    with torch.no_grad():
        for name, one in policy.named_parameters():
            if "lora_" in name:
                one.add_(0.5)
    assert torch.equal(reference.features.of(0, (1, 2), "pool"), known)
    assert not torch.allclose(policy.features.of(0, (1, 2), "pool"), known, atol=1e-3)
    assert not any(one.requires_grad for one in reference.parameters())


def test_adapters_are_saved_and_loaded_and_change_the_rows_that_are_kept(
    folder: str, pictures: list[Path], tmp_path: Path
) -> None:
    clip = load_clip(folder).adapted(rank=2)
    with torch.no_grad():
        for name, one in clip.named_parameters():
            if "lora_" in name:
                one.add_(0.3)
    clip.save_adapters(tmp_path / "adapters")
    again = load_clip(folder, str(tmp_path / "adapters"))
    assert torch.allclose(again.texts(TEXTS, 3), clip.texts(TEXTS, 3), atol=1e-6)
    assert not any(one.requires_grad for one in again.parameters())

    rows = [
        _rows(folder, pictures, tmp_path / "cache", adapters)
        for adapters in (None, str(tmp_path / "adapters"))
    ]
    assert not torch.allclose(rows[0], rows[1], atol=1e-3)
    assert torch.allclose(rows[1], clip.pictures(pictures, 3), atol=1e-6)


def test_clip_embeds_questions_by_configuration(folder: str, tmp_path: Path) -> None:
    config = TextEncoderConfig(kind=TextEncoderKind.clip, path=folder)
    seen = Seen([1, 2, 3], TEXTS, [None] * 3, [()] * 3, range(2))
    assert torch.allclose(
        encode_questions(config, seen, tmp_path), load_clip(folder).texts(TEXTS, 1), atol=1e-5
    )


def test_what_is_missing_is_named(folder: str, pictures: list[Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"image_encoder\.path=no/clip: nothing there"):
        load_clip("no/clip")
    with pytest.raises(FileNotFoundError, match=r"image_encoder\.adapters=.*adapter_config"):
        load_clip(folder, str(tmp_path))
    bare = [*items(pictures)[:2], Item(Question(2, 2, "what", ("a",)), "a")]
    features = LiveFeatures(load_clip(folder), bare)
    with pytest.raises(ValueError, match=r"query 0: pool: no picture of ids \[2, 9\]"):
        features.of(0, (1, 2, 9), "pool")


def test_adapters_without_peft_name_the_extra(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = load_clip(folder)
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ImportError, match=r"pip install 'people-focus-rl\[hf\]'"):
        clip.adapted()
    with pytest.raises(ImportError, match="adapters need peft"):
        load_clip(folder, str(tmp_path))


def _expected(policy: MetricSelector) -> Tensor:
    queries = [SlateQuery(0, (1, 2))]
    return -policy.enumerate(policy.encode(queries)).exp()[0, 0]


def _rows(folder: str, pictures: list[Path], cache: Path, adapters: str | None) -> Tensor:
    config = ImageEncoderConfig(kind=ImageEncoderKind.clip, path=folder, adapters=adapters)
    seen = Seen([1, 2, 3], TEXTS, pictures, [()] * 3, range(2))
    return encode_pictures(config, TextEncoderConfig(), seen, cache)


def test_a_configured_selector_learns_adapters_and_keeps_nothing_else_of_clip(
    folder: str, tmp_path: Path
) -> None:
    files = replace(FILES, pictures="pictures", picture_name="picture_{image_id:04d}.png")
    data = load_data(
        folder_config(files=files),
        PathsConfig(cache=str(tmp_path), data=str(write_vqa_folder(tmp_path))),
        0,
    )
    model = LeverModelConfig(
        kind=SelectorKind.pointer,
        features=FeatureConfig(kind=FeatureKind.clip, path=folder, lora_rank=2),
        width=8,
    )

    def selector() -> SlatePolicy:
        return build_policy(model, build_features(data, model, PathsConfig(cache=str(tmp_path))))

    policy, other = selector(), selector()
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    save_policy(policy, model, tmp_path / "checkpoint", {})
    kept = load_file(tmp_path / "checkpoint" / "policy.safetensors")
    assert {name for name in kept if name.startswith("features.")}
    assert all("lora_" in name for name in kept if name.startswith("features."))
    load_weights(other, model, tmp_path / "checkpoint")
    some = data.train[:2]
    assert torch.equal(policy.enumerate(policy.encode(some)), other.enumerate(other.encode(some)))

    save_file({"gate.bias": kept["gate.bias"]}, tmp_path / "checkpoint" / "policy.safetensors")
    with pytest.raises(ValueError, match=r"policy\.safetensors lacks \['blocks.*not whole"):
        load_weights(other, model, tmp_path / "checkpoint")
    table_only = replace(model, kind=SelectorKind.gpt2)
    with pytest.raises(ValueError, match=r"model\.features\.kind=clip: expected another kind"):
        build_policy(table_only, policy.features)
