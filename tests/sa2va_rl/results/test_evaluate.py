"""Measuring choices, on tables whose answers are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sa2va_rl.data.features import Standardiser
from sa2va_rl.policy.prompt_selector import PromptSelector
from sa2va_rl.policy.saved import PromptPolicy
from sa2va_rl.results.evaluate import best_fixed, evaluate_policy, policy_report
from sa2va_rl.rewards.prompt_table import MEASURES, PromptTable, measure_prompts
from tests.sa2va_rl.toy import PROMPTS, masks, pictures


class Alternate(PromptPolicy):
    """Name the right prompt for all pictures but the last, or always the same."""

    right = True

    def choose(self, features_BD: np.ndarray) -> np.ndarray:
        chosen_B = np.array([0, 2] * (len(features_BD) // 2))
        chosen_B[-1] = 0
        return chosen_B if self.right else np.zeros_like(chosen_B)


@pytest.fixture
def table() -> PromptTable:
    return measure_prompts(pictures(10), PROMPTS, masks)


def policy(table: PromptTable) -> Alternate:
    seen = Standardiser.fit(table.features_BD)
    return Alternate(PromptSelector(seen.mean_D.size, 3), seen, PROMPTS, False)


def test_every_prompt_is_measured(table: PromptTable) -> None:
    # Six right rows of twelve; the middle prompt finds three of them, the wrong one nothing.
    assert table.dice_BK[0].tolist() == pytest.approx([1, 2 / 3, 0])
    assert table.dice_BK[1].tolist() == pytest.approx([0, 2 / 3, 1])
    assert table.measures_BK["recall"][0].tolist() == pytest.approx([1, 0.5, 0])
    assert table.measures_BK["accuracy"][0].tolist() == pytest.approx([1, 0.75, 0.5])
    assert np.isnan(table.score_BK).all()
    assert best_fixed(table) == 1


def test_a_policy_is_measured_against_the_fixed_prompt(table: PromptTable, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    figures = evaluate_policy("toy", policy(table), table, 1, path)
    assert figures["dice"] == pytest.approx(0.9)
    assert figures["fixed/dice"] == pytest.approx(2 / 3)
    assert figures["oracle/dice"] == 1
    assert figures["gap_closed"] == pytest.approx((0.9 - 2 / 3) / (1 / 3))
    assert figures["choice/0"] == pytest.approx(0.6)
    assert figures["ignores_picture"] == 0
    stored = json.loads(path.read_text())
    assert stored["average_metrics"]["recall"] == pytest.approx(figures["recall"])
    assert stored["action_distribution"] == pytest.approx({"dark": 0.6, "middle": 0, "bright": 0.4})
    last = stored["per_sample_results"][-1]
    assert (last["image"], last["action"], last["prompt"], last["dice"]) == ("p9", 0, "dark", 0)
    text = policy_report("toy", figures, PROMPTS)
    assert "0.900" in text and "closed: 0.70" in text


def test_a_policy_that_names_one_prompt_is_told(
    table: PromptTable, caplog: pytest.LogCaptureFixture
) -> None:
    blind = policy(table)
    Alternate.right = False
    try:
        figures = evaluate_policy("toy", blind, table, 1)
    finally:
        Alternate.right = True
    assert figures["ignores_picture"] == 1
    assert "toy ignores the picture: prompt 0 for 100 % of them" in caplog.text


def test_without_truths_there_is_the_score_alone(table: PromptTable) -> None:
    bare = [replace(sample, truth_HW=None) for sample in pictures(10)]
    unknown = measure_prompts(bare, PROMPTS, masks)
    assert not unknown.has_truth
    scored = replace(unknown, score_BK=np.tile([0.2, 0.9, 0.4], (10, 1)))
    assert best_fixed(scored) == 1
    figures = evaluate_policy("toy", policy(table), scored, 1)
    assert not set(MEASURES) & figures.keys()
    assert figures["fixed/reward_net_score"] == pytest.approx(0.9)
    assert figures["reward_net_score"] == pytest.approx(0.6 * 0.2 + 0.4 * 0.4)
    assert "dice" not in policy_report("toy", figures, PROMPTS)
