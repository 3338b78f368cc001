"""The choice of a prompt on the shared loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core_rl.config import (
    CurriculumConfig,
    PhaseConfig,
    PhaseKind,
    RolloutConfig,
    TrainerConfig,
)
from core_rl.loss_config import AdvantageConfig, AdvantageKind, KLConfig, LossConfig
from sa2va_rl.config import (
    RewardMode,
    Sa2VAModelConfig,
    SelectorConfig,
)
from sa2va_rl.data.features import Standardiser
from sa2va_rl.learning.grpo import fit_selector
from sa2va_rl.learning.policy_run import PolicyRun
from sa2va_rl.policy.saved import load_policy
from sa2va_rl.rewards.verdicts import Verdicts
from tests.sa2va_rl.toy import PROMPTS, judge, masks, pictures, right_share
from tests.sa2va_rl.workshop import small_settings


def run(folder: Path, *kinds: PhaseKind, truth: bool = True, **selector: Any) -> PolicyRun:
    train, val = pictures(24, truth=truth), pictures(6, first=50, truth=truth)
    verdicts = [Verdicts(part, PROMPTS, masks, judge) for part in (train, val)]
    settings = small_settings(
        folder,
        model=Sa2VAModelConfig(prompts=list(PROMPTS)),
        selector=SelectorConfig(**{"hidden": [16], **selector}),
        curriculum=CurriculumConfig([PhaseConfig(kind=kind, steps=60) for kind in kinds]),
        loss=LossConfig(
            advantage=AdvantageConfig(kind=AdvantageKind.mean), kl=KLConfig(weight=0.0)
        ),
        rollout=RolloutConfig(num_generations=6),
        trainer=TrainerConfig(lr=2e-2, batch_size=4, val_every=10, progress=False, log_every=100),
    )
    return PolicyRun(
        settings, *verdicts, Standardiser.fit(verdicts[0].features_BD), seed=0, folder=folder
    )


@pytest.mark.parametrize("kind", list(PhaseKind))
def test_either_phase_learns_the_choice(kind: PhaseKind, tmp_path: Path) -> None:
    policy = fit_selector(run(tmp_path, kind, truth=False))
    assert right_share(policy) == 1
    stored = load_policy(tmp_path / "final_model", PROMPTS)
    assert not stored.sees_progress
    features_BD = run(tmp_path, kind).val.features_BD
    np.testing.assert_array_equal(
        stored.probabilities(features_BD), policy.probabilities(features_BD)
    )


def test_a_phase_of_all_prompts_judges_all_of_them(tmp_path: Path) -> None:
    whole = run(tmp_path, PhaseKind.rce)
    fit_selector(whole)
    assert whole.train.asked == 24 * 3
    rows = pd.read_parquet(tmp_path / "samples.parquet")
    groups = rows.groupby(["step", "picture"]).size()
    assert set(groups) == {3}
    assert rows["reward/gt_dice"].notna().all()  # watched, not paid
    np.testing.assert_allclose(rows["reward/total"], rows["reward/reward_net"])


def test_the_truth_pays_where_it_is_asked_for(tmp_path: Path) -> None:
    fit_selector(run(tmp_path, PhaseKind.rce, reward=RewardMode.gt_dice))
    rows = pd.read_parquet(tmp_path / "samples.parquet")
    np.testing.assert_allclose(rows["reward/total"], rows["reward/gt_dice"])
    mixed = run(tmp_path / "mix", PhaseKind.rce, reward=RewardMode.mix, dice_share=0.25)
    fit_selector(mixed)
    rows = pd.read_parquet(tmp_path / "mix" / "samples.parquet")
    expected = 0.25 * rows["reward/gt_dice"] + 0.75 * rows["reward/reward_net"]
    np.testing.assert_allclose(rows["reward/total"], expected, rtol=1e-5)
    bare = run(tmp_path, PhaseKind.rce, truth=False, reward=RewardMode.gt_dice)
    with pytest.raises(ValueError, match="have no mask, the first p0"):
        fit_selector(bare)


def test_without_a_judge_the_message_names_the_command(tmp_path: Path) -> None:
    whole = run(tmp_path, PhaseKind.rce)
    blind = replace(whole, train=Verdicts(whole.train.samples, PROMPTS, masks))
    with pytest.raises(ValueError, match=r"needs a reward network; train one by \+exp=sa2va_rew"):
        fit_selector(blind)
