"""Scores of masks: made once, shared, counted."""

from __future__ import annotations

import numpy as np

from sa2va_rl.prompts import PROMPTS
from sa2va_rl.rewards.verdicts import Verdict, Verdicts
from tests.sa2va_rl.rows import Rows, samples


def test_an_empty_mask_is_worth_nothing() -> None:
    pictures = samples()
    verdicts = Verdicts(pictures, PROMPTS, Rows(), lambda image_HWC, mask_HW: 0.9)
    assert verdicts(0, 0).reward_net == 0
    assert verdicts(0, 1).reward_net == 0.9


def test_policies_share_verdicts_and_count_their_own_questions() -> None:
    pictures, judged = samples(), []

    def judge(image_HWC: np.ndarray, mask_HW: np.ndarray) -> float:
        judged.append(1)
        return 0.9

    known: dict[tuple[int, int], Verdict] = {}
    first, second = (Verdicts(pictures, PROMPTS, Rows(), judge, known) for _ in range(2))
    assert [first(0, 1), first(0, 2)] == [second(0, 1), second(0, 2)]
    assert len(judged) == 2
    first(1, 1)
    assert (first.asked, second.asked) == (3, 2)
    assert list(second.known(0)) == [1, 2]
    assert not second.known(1)
