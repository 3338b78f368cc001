"""What choices are worth."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from sa2va_rl.results.choice_metrics import choice_metrics, gap_closed, ignores_picture, worth

DICE = np.array([[0.5, 0.9, 0.1], [0.6, 0.2, 0.7], [0.7, 0.1, 0.1]])


def test_worth() -> None:
    assert worth(DICE, np.array([1, 0, 2])).tolist() == [0.9, 0.6, 0.1]


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ([0, 0, 0], 0),  # the fixed prompt itself
        ([1, 2, 0], 1),  # the oracle
        ([1, 0, 0], 0.4 / 0.5),
        ([0, 1, 0], -0.4 / 0.5),  # worse than fixed
    ],
)
def test_gap_closed(choices: list[int], expected: float) -> None:
    assert gap_closed(DICE, np.array(choices), fixed=0) == pytest.approx(expected)


def test_no_gap_is_no_number() -> None:
    assert np.isnan(gap_closed(np.ones((2, 3)), np.array([0, 1]), fixed=0))


def test_metrics_by_hand() -> None:
    found = choice_metrics(DICE, np.array([1, 0, 0]), fixed=0)
    assert found["dice"] == pytest.approx(2.2 / 3)
    assert found["regret"] == pytest.approx(0.1 / 3)
    assert found["entropy"] == pytest.approx(-(np.log(1 / 3) + 2 * np.log(2 / 3)) / 3)
    assert found["distinct_prompts"] == 2
    shares = [found[f"choice/{place}"] for place in range(3)]
    assert shares == pytest.approx([2 / 3, 1 / 3, 0])


# Which of two prompts is right for each of a hundred pictures, and the Dice of both.
RIGHT = (np.random.default_rng(0).normal(size=100) > 0).astype(np.int64)
BANDIT = np.stack([1.0 - RIGHT, RIGHT], axis=1)


def test_a_policy_that_looks_passes(caplog: pytest.LogCaptureFixture) -> None:
    assert not ignores_picture("good", RIGHT, BANDIT)
    assert not caplog.records


def test_one_prompt_for_all_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert ignores_picture("stuck", np.ones_like(RIGHT), BANDIT)
    assert "stuck ignores the picture: prompt 1 for 100 % of them" in caplog.text


def test_varied_but_blind_choices_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert ignores_picture("blind", np.arange(100) % 2, BANDIT)
    assert "with permuted choices" in caplog.text
