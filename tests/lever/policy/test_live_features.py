"""Features through CLIP with adapters that train: gradients, copies, checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core_rl.config import PathsConfig
from lever.data.datasets import load_data
from lever.data.sources import Item
from lever.data.vqa_files import Question
from lever.features.clip import load_clip
from lever.features.slate_features import SlateQuery
from lever.model_config import FeatureConfig, FeatureKind, LeverModelConfig, SelectorKind
from lever.policy.build import build_features, build_policy, load_weights, save_policy
from lever.policy.live_features import LiveFeatures
from lever.policy.selectors import MetricSelector
from lever.policy.slate_policy import SlatePolicy
from tests.lever.tiny_clip import items, write_clip, write_pictures
from tests.lever.vqa_folder import FILES, folder_config, write_vqa_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def test_gradients_reach_the_adapters_and_nothing_else(folder: str, pictures: list[Path]) -> None:
    torch.manual_seed(0)
    features = LiveFeatures(load_clip(folder).adapted(rank=2, alpha=4), items(pictures))
    policy = MetricSelector(features, LeverModelConfig(shots=1))
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
    policy = MetricSelector(features, LeverModelConfig(shots=1))
    reference = policy.frozen_copy()
    known = reference.features.of(0, (1, 2), "pool").clone()
    with torch.no_grad():
        for name, one in policy.named_parameters():
            if "lora_" in name:
                one.add_(0.5)
    assert torch.equal(reference.features.of(0, (1, 2), "pool"), known)
    assert not torch.allclose(policy.features.of(0, (1, 2), "pool"), known, atol=1e-3)
    assert not any(one.requires_grad for one in reference.parameters())


def test_an_item_without_a_picture_is_named(folder: str, pictures: list[Path]) -> None:
    bare = [*items(pictures)[:2], Item(Question(2, 2, "what", ("a",)), "a")]
    features = LiveFeatures(load_clip(folder), bare)
    with pytest.raises(ValueError, match=r"query 0: pool: no picture of ids \[2, 9\]"):
        features.of(0, (1, 2, 9), "pool")


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


def _expected(policy: MetricSelector) -> Tensor:
    queries = [SlateQuery(0, (1, 2))]
    return -policy.enumerate(policy.encode(queries)).exp()[0, 0]
