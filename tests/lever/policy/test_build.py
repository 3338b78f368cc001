from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from core_rl.config import PathsConfig
from lever.data.datasets import load_data
from lever.features.slate_features import FeatureTable
from lever.model_config import FeatureConfig, LeverModelConfig
from lever.policy.build import (
    build_features,
    build_policy,
    load_weights,
    save_policy,
    weights_digest,
)
from tests.lever.vqa_folder import folder_config, write_vqa_folder


def test_a_checkpoint_of_another_width_is_named_with_its_cure(tmp_path: Path) -> None:
    config = LeverModelConfig()
    narrow, wide = (build_policy(config, FeatureTable(torch.randn(5, size))) for size in (4, 6))
    save_policy(narrow, config, tmp_path / "narrow", {})
    with pytest.raises(ValueError, match=r"checkpoint=.*narrow: its weights have other shapes .*"):
        load_weights(wide, config, tmp_path / "narrow")


def test_weights_are_named_by_what_they_are(tmp_path: Path) -> None:
    config = LeverModelConfig()
    policy = build_policy(config, FeatureTable(torch.randn(5, 4)))
    names = []
    for folder in ("one", "copy", "other"):
        if folder == "other":
            with torch.no_grad():
                next(iter(policy.parameters())).add_(1.0)
        save_policy(policy, config, tmp_path / folder, {})
        names.append(weights_digest(tmp_path / folder))
    assert names[0] == names[1] != names[2]
    with pytest.raises(FileNotFoundError, match="missing: no policy"):
        weights_digest(tmp_path / "missing")


def test_features_of_files_do_not_know_the_answers_of_training_queries(tmp_path: Path) -> None:
    write_vqa_folder(tmp_path / "data")
    paths = PathsConfig(data=str(tmp_path / "data"), cache=str(tmp_path / "cache"))
    data = load_data(folder_config(), paths, 0)
    model = LeverModelConfig(features=FeatureConfig(dims=4, directions=4, epochs=2))
    asked = {one.query for one in data.train}
    assert asked <= set(data.demos)

    def rows(changed: Collection[int]) -> Tensor:
        items = tuple(
            replace(one, answer="giraffe") if item in changed else one
            for item, one in enumerate(data.items)
        )
        other = replace(data, items=items, fingerprint=f"changed {sorted(changed)}")
        made = build_features(other, model, paths)
        assert isinstance(made, FeatureTable)
        return made.rows_ND

    assert torch.equal(rows(()), rows(asked))
    assert not torch.equal(rows(()), rows({item for item in data.demos if item not in asked}))
