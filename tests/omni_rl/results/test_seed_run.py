"""One seed of Stage 4, and where its training begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core_rl.config import CurriculumConfig, PhaseConfig, PhaseKind, RewardConfig
from core_rl.loss_config import KLConfig, KLKind, LossConfig
from omni_rl.config import Blank
from omni_rl.learning.fit_policy import imitates, phase_steps
from omni_rl.policy.policy import OmniPolicy
from omni_rl.results import seed_run as stage4
from omni_rl.results.seed_run import check_settings, run_seed
from omni_rl.rewards.rules import Format
from omni_rl.settings import Settings
from omni_rl.tasks.train import one_launcher, resume_points

# -- refused before anything is spent --------------------------------------------------------------


@pytest.mark.usefixtures("offline")
def test_a_missing_checkpoint_is_refused(settings: Settings) -> None:
    typo = replace(settings, model=replace(settings.model, path="models/typo"))
    with pytest.raises(FileNotFoundError, match=r"model\.path=models/typo: no such folder"):
        check_settings(typo)


def test_exact_kl_is_refused(settings: Settings) -> None:
    exact = replace(settings, loss=LossConfig(kl=KLConfig(kind=KLKind.exact)))
    with pytest.raises(ValueError, match=r"loss\.kl\.kind=exact.*set loss\.kl\.kind=k3"):
        check_settings(exact)


def test_a_reward_without_a_weight_is_refused_before_the_start_is_measured(
    settings: Settings, tmp_path: Path
) -> None:
    reward = RewardConfig(functions={"format": len})
    with pytest.raises(ValueError, match="weights"):
        run_seed(replace(settings, reward=reward), 0, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_start_passes_its_gate_before_it_is_denied_its_media(
    settings: Settings,
    fresh_policy: Callable[..., OmniPolicy],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = fresh_policy().blank(Blank.all)  # as `learning_policy` gives it
    monkeypatch.setattr(stage4, "learning_policy", lambda *_: policy)

    def gate(at_gate: OmniPolicy, *_: object) -> dict[str, float]:
        assert at_gate.builder.blank is Blank.none
        return {}

    def after(policy: OmniPolicy, _: object) -> str:
        raise InterruptedError(policy.builder.blank.value)

    monkeypatch.setattr(stage4, "check_start", gate)
    monkeypatch.setattr(stage4, "describe_first", after)
    blanked = replace(
        settings,
        model=replace(settings.model, warm_start="packaged"),
        data_mix=replace(settings.data_mix, blank=Blank.all),
        reward=RewardConfig(functions={"format": Format()}, weights={"format": 1.0}),
    )
    with pytest.raises(InterruptedError, match="all"):
        run_seed(blanked, 0, tmp_path)


# -- resuming --------------------------------------------------------------------------------------


def test_each_seed_goes_on_from_its_own_checkpoint(tmp_path: Path) -> None:
    points = {}
    for seed in (3, 4):
        file = tmp_path / f"seed{seed}" / "checkpoints" / "last.ckpt"
        file.parent.mkdir(parents=True)
        torch.save({}, file)
        points[seed] = str(file)
    assert resume_points(str(tmp_path), [3, 4]) == points
    assert resume_points(points[4], [7]) == {7: points[4]}
    assert resume_points(None, [3, 4]) == {3: None, 4: None}
    with pytest.raises(ValueError, match=r"trainer\.resume=.*no seed5.*trainer\.seeds"):
        resume_points(str(tmp_path), [5, 6])
    with pytest.raises(FileNotFoundError, match=r"trainer\.resume"):
        resume_points(str(tmp_path), [0])


def test_seeds_that_a_run_had_not_come_to_start_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begun = tmp_path / "seed3" / "checkpoints" / "last.ckpt"
    begun.parent.mkdir(parents=True)
    torch.save({}, begun)
    (tmp_path / "seed4").mkdir()  # killed before its first checkpoint
    with caplog.at_level("INFO"):
        got = resume_points(str(tmp_path), [3, 4, 5])
    assert got == {3: str(begun), 4: None, 5: None}
    assert "no checkpoint of seeds [4, 5]: they start anew" in caplog.text


def test_seeds_of_several_devices_run_in_turn(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    side_by_side = replace(settings, trainer=replace(settings.trainer, workers=2))
    assert one_launcher(side_by_side) is side_by_side
    several = replace(side_by_side, hardware=replace(settings.hardware, devices=4))
    with caplog.at_level("INFO"):
        assert one_launcher(several).trainer.workers == 1
    assert "trainer.workers=2: 1, since a seed takes 4 devices" in caplog.text


# -- training --------------------------------------------------------------------------------------


def test_a_curriculum_with_rce_learns_from_solutions() -> None:
    phases = [PhaseConfig(PhaseKind.rce), PhaseConfig(PhaseKind.grpo)]
    assert imitates(CurriculumConfig(phases))
    assert not imitates(CurriculumConfig(phases[1:]))


def test_an_epoch_counts_the_repeated_updates() -> None:
    phases = CurriculumConfig([PhaseConfig(), PhaseConfig(num_iterations=3)])
    assert phase_steps(phases, 5) == [5, 15]
