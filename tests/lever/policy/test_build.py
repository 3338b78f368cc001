from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lever.features.slate_features import FeatureTable
from lever.model_config import LeverModelConfig
from lever.policy.build import build_policy, load_weights, save_policy, weights_digest


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
