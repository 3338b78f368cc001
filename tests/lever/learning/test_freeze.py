"""The option to train the pointer's heads alone in GRPO phases."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from core_rl.config import PhaseConfig, PhaseKind
from lever.features.slate_features import mean_features
from lever.freeze import FreezeBackbone
from lever.policy.selectors import MetricSelector, PointerSelector
from lever.policy.slate_policy import SlatePolicy
from tests.lever.data.test_datasets import load, small_config
from tests.lever.training import train

DATA = load(small_config())
HEADS = ("query_proj", "pool_proj", "gate")


def moved_by(model: SlatePolicy, kind: PhaseKind, folder: Path) -> set[str]:
    """Train one phase; return the first names of the weights that changed."""
    assert DATA.world is not None
    torch.manual_seed(0)
    before: dict[str, Tensor] = {name: w.clone() for name, w in model.state_dict().items()}
    train(
        model,
        DATA.world,
        DATA.train,
        [PhaseConfig(kind, steps=4)],
        folder,
        callbacks=[FreezeBackbone()],
        lr=0.01,
    )
    after = model.state_dict()
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


def pointer() -> PointerSelector:
    torch.manual_seed(1)
    return PointerSelector(mean_features(DATA.image_ND, DATA.text_ND), width=16)


def test_grpo_moves_the_heads_alone_and_rce_everything(tmp_path: Path) -> None:
    assert moved_by(pointer(), PhaseKind.grpo, tmp_path / "grpo") == set(HEADS)
    assert moved_by(pointer(), PhaseKind.rce, tmp_path / "rce") == {*HEADS, "project", "blocks"}


def test_a_selector_without_a_backbone_is_an_error(tmp_path: Path) -> None:
    model = MetricSelector(mean_features(DATA.image_ND, DATA.text_ND))
    with pytest.raises(ValueError, match="MetricSelector has no backbone"):
        moved_by(model, PhaseKind.grpo, tmp_path)
