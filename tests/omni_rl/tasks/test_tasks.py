"""Tasks refuse at the start what they could not finish, and use all their settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core_rl.config import CurriculumConfig, HardwareConfig, PhaseConfig, PhaseKind
from omni_rl.config import Blank
from omni_rl.learning.fit_policy import Training
from omni_rl.policy.policy import OmniPolicy
from omni_rl.settings import Settings
from omni_rl.tasks import demo, evaluate, sft


@pytest.fixture
def groups(settings: Settings) -> dict[str, Any]:
    """The settings as a configuration hands them over."""
    return dict(vars(settings))


@pytest.mark.usefixtures("offline")
def test_a_missing_checkpoint_is_named_before_the_start_answers(
    groups: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spend(*_: object) -> None:
        raise AssertionError("the start was asked")

    monkeypatch.setattr(evaluate, "start_policy", spend)
    with pytest.raises(FileNotFoundError, match=r"^checkpoint=models/typo: no such folder"):
        evaluate.evaluate(tmp_path, 0, "models/typo", {}, **groups)
    with pytest.raises(FileNotFoundError, match=r"^checkpoint=models/typo: no such folder"):
        demo.demo(tmp_path, 0, "clip.mp4", "who?", [], "models/typo", **groups)


def test_supervised_training_refuses_other_phases(
    settings: Settings, groups: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "config.json").touch()
    groups["model"] = replace(settings.model, path=str(tmp_path))
    phases = [PhaseConfig(PhaseKind.rce), PhaseConfig(PhaseKind.grpo)]
    groups["curriculum"] = CurriculumConfig(phases)
    with pytest.raises(ValueError, match=r"curriculum\.phases=\['rce', 'grpo'\]: supervised"):
        sft.sft(tmp_path, 0, **groups)


def test_a_warm_start_is_not_made_without_its_media(
    settings: Settings, groups: dict[str, Any], tmp_path: Path
) -> None:
    groups["data_mix"] = replace(settings.data_mix, blank=Blank.video)
    with pytest.raises(ValueError, match=r"data_mix\.blank=video: a warm start is made with"):
        sft.sft(tmp_path, 0, **groups)


def test_supervised_training_blanks_checkpoints_and_knows_the_general_source(
    settings: Settings,
    groups: dict[str, Any],
    fresh_policy: Callable[..., OmniPolicy],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fresh_policy(early=False).save(tmp_path / "start", "x", {})
    seen: list[tuple[Blank, bool]] = []

    def learn(training: Training) -> None:
        policy = training.policy
        seen.append((policy.builder.blank, policy.checkpoints_activations))

    monkeypatch.setattr(Training, "by_example", learn)
    groups["model"] = replace(settings.model, path=str(tmp_path / "start"))
    groups["data_mix"] = replace(settings.data_mix, blank=Blank.all, general=["emer"])
    groups["hardware"] = HardwareConfig(activation_checkpointing=True)
    groups["curriculum"] = CurriculumConfig([PhaseConfig(PhaseKind.rce)])
    metrics = sft.sft(tmp_path, 0, **groups)
    assert seen == [(Blank.all, True)]
    assert metrics["after/general_accuracy"] == metrics["after/accuracy/source/emer"]
    assert "diff/general_accuracy" in metrics
