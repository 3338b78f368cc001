"""The controls of Stage 4: what they are taught, what they refuse, where they begin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core_rl.config import DoctorConfig, RewardConfig, TrainerConfig
from core_rl.loop.optim import lr_factor
from core_rl.objective.curriculum import Curriculum
from omni_rl.config import WarmStartConfig
from omni_rl.data import scenes
from omni_rl.data.record import Record
from omni_rl.data.splits import Splits
from omni_rl.learning.fit_policy import Spent, Training, quiet
from omni_rl.policy.policy import OmniPolicy
from omni_rl.results.controls import (
    CONTROLS,
    check_controls,
    check_solutions,
    supervision,
    try_control,
)
from omni_rl.rewards.answers import score_answer
from omni_rl.rewards.rules import Format
from omni_rl.settings import Settings


def test_supervision_by_budget_has_its_rate_from_the_first_step(settings: Settings) -> None:
    endless = supervision(settings)
    trainer = endless.trainer
    curriculum = Curriculum.resolve(endless.curriculum, 1, trainer.max_steps)
    for step in (0, 1, 300):
        assert lr_factor(step, curriculum, trainer.warmup, trainer.schedule) == 1.0
    assert trainer.lr == 0.5 * settings.model.warm.lr
    own = replace(settings, model=replace(settings.model, path="checkpoint"))
    assert supervision(own).trainer.lr == settings.trainer.lr  # the tiny start's rate is its own


@pytest.fixture
def training(
    settings: Settings, splits: Splits, fresh_policy: Callable[..., OmniPolicy], tmp_path: Path
) -> Training:
    small = replace(
        settings,
        model=replace(settings.model, warm=WarmStartConfig(batch_size=4)),
        trainer=quiet(settings.trainer),
        reward=RewardConfig(functions={"format": Format()}, weights={"format": 1.0}),
        doctor=DoctorConfig(enabled=False),
    )
    return Training(fresh_policy(), small, splits, tmp_path, seed=0)


def test_supervision_imitates_right_answers_and_the_habit_wrong_ones(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taught(self: Training, teach: Callable[..., list[Record]], budget: float) -> Spent:
        for _ in range(300):
            teach(None, self.splits.train)
        return Spent(seconds=budget, steps=300)

    monkeypatch.setattr(Training, "by_example", taught)
    monkeypatch.setattr(Training, "keep_best", lambda _: None)
    right = CONTROLS["sft"](training, 52.0)
    assert right == {"steps": 300, "cpu_seconds": 52, "label_accuracy": 1}

    def share(record: Record) -> float:
        """Expected score of what the weak narrator answers: the truth, or the habit."""
        scene = scenes.scene_of(record)
        habit = f"<answer>{scenes.HABIT_ANSWER[scene.family]}</answer>"
        return 1 - scene.question.habit * (1 - float(score_answer(record, habit) or 0))

    shares = [share(record) for record in training.splits.train]
    wrong = CONTROLS["sft_habit"](training, 52.0)
    assert wrong["label_accuracy"] == pytest.approx(np.mean(shares), abs=0.02)
    assert np.mean(shares) < 0.8


@pytest.mark.filterwarnings("ignore")  # Lightning on a run this short
def test_a_supervised_control_stops_at_its_budget_and_saves_its_policy(training: Training) -> None:
    numbers = CONTROLS["sft"](training, 0.0)
    assert (numbers["steps"], numbers["label_accuracy"]) == (1, 1)
    assert numbers["cpu_seconds"] > 0
    assert (training.folder / "checkpoints" / "final" / "config.json").exists()


def test_supervision_leaves_records_without_a_solution_out(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Splits] = []
    bare = [replace(record, solution="") for record in training.splits.train[:3]]
    mixed = replace(training.splits, train=[*bare, *training.splits.train[3:]])

    def taught(self: Training, teach: Callable[..., list[Record]], budget: float) -> Spent:
        seen.append(self.splits)
        teach(None, self.splits.train)
        return Spent(budget, 1)

    monkeypatch.setattr(Training, "by_example", taught)
    monkeypatch.setattr(Training, "keep_best", lambda _: None)
    CONTROLS["sft"](replace(training, splits=mixed), 1.0)
    assert seen[0].train == training.splits.train[3:]
    check_solutions(["sft"], mixed.train)
    check_solutions(["blank_media"], bare)
    with pytest.raises(ValueError, match=r"no training record has a solution that sft could"):
        check_solutions(["sft"], bare)


# -- refused before anything is spent --------------------------------------------------------------


def test_the_habit_is_refused_without_generated_clips(settings: Settings) -> None:
    names = ["sft_habit", "blank_media"]
    check_controls(names, settings.data_mix)
    real = replace(settings.data_mix, generated=False)
    check_controls(["sft"], real)
    match = r"trainer\.controls.*generated clips.*=\[sft,shuffled_rewards,blank_media\]"
    with pytest.raises(ValueError, match=match):
        check_controls(names, real)


def test_an_unknown_control_is_refused(settings: Settings) -> None:
    with pytest.raises(ValueError, match=r"trainer\.controls=\['nothing'\]: expected names"):
        check_controls(["nothing"], settings.data_mix)


def test_controls_resume_nothing() -> None:
    assert quiet(TrainerConfig(resume="run")).resume is None


def test_a_control_that_fails_is_logged(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = replace(settings, model=replace(settings.model, path=str(tmp_path / "nowhere")))
    assert try_control(broken, 2, tmp_path, "blank_media", 1.0) is None
    assert "control blank_media of seed 2 failed" in caplog.text
