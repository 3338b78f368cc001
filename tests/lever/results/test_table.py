from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lever.results.table import compare, gap_closed
from lever.results.world_scores import WorldScores


def world(shift: float) -> WorldScores:
    rng = np.random.default_rng(int(100 * shift))
    low, high = rng.uniform(0.1, 0.3, 200), rng.uniform(0.8, 1.0, 200)
    scores = {
        "text_sim": low,
        "oracle": high,
        "sft": low + 0.6 * (high - low) + shift,
        "rce": low + 0.6 * (high - low) + shift,
        "grpo": low + 0.8 * (high - low) + shift,
    }
    expected = {"grpo": scores["grpo"] - 0.1}
    return WorldScores(scores, tuple(range(200)), expected, 10.0)


def test_the_gap_is_a_ratio_of_means_and_its_interval_holds_it() -> None:
    scores = world(0.0).scores
    found = gap_closed([scores["grpo"]], [scores["text_sim"]], [scores["oracle"]], [range(200)])
    assert found.mean == pytest.approx(0.8)
    assert 0.79 < found.low <= found.mean <= found.high < 0.81


def test_metrics_hold_each_row_and_the_comparisons() -> None:
    metrics, text = compare([world(0.0), world(0.01), world(0.02)])
    assert metrics["gap_closed/text_sim"] == 0 and metrics["gap_closed/oracle"] == 1
    assert metrics["diff/grpo_vs_sft_low"] > 0.1
    assert metrics["diff/rce_vs_sft"] == 0
    assert metrics["expected/grpo"] == pytest.approx(metrics["score/grpo"] - 0.1)
    assert metrics["answerer_calls"] == 10 and metrics["worlds"] == 3
    rows = [line.split()[0] for line in text.splitlines()[1:6]]
    assert rows[0] == "text_sim" and rows[-1] == "oracle"


def test_without_an_oracle_no_gap_is_claimed() -> None:
    one = world(0.0)
    scores = {name: values for name, values in one.scores.items() if name != "oracle"}
    metrics, text = compare([WorldScores(scores, one.pictures, {}, one.answerer_calls)])
    assert not any(name.startswith("gap_closed") for name in metrics)
    assert "grpo - sft" in text


def test_seeds_that_answer_the_same_questions_are_no_further_questions() -> None:
    one = replace(world(0.0), shared=True)
    alone, _ = compare([one])
    copies, text = compare([one] * 5)
    assert {name: copies[name] for name in alone} == pytest.approx(alone)
    assert copies["score/grpo/seed4"] == pytest.approx(alone["score/grpo"])
    assert "5 seeds on the same 200 held-out queries" in text


def test_questions_about_one_picture_are_no_further_evidence() -> None:
    """Each question asked four times over: a copy tells nothing new."""
    one = world(0.0)
    alone, _ = compare([one])
    copied = {name: np.repeat(values, 4) for name, values in one.scores.items()}
    expected = {name: np.repeat(values, 4) for name, values in one.expected.items()}
    pictures = tuple(np.repeat(one.pictures, 4).tolist())
    asked_again, _ = compare([WorldScores(copied, pictures, expected, one.answerer_calls)])
    assert asked_again == pytest.approx(alone)
