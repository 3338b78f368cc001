"""Judges: stored scores first, the answerer for the rest."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lever.answerers.protocol import KernelICLAnswerer
from lever.candidates.rl_records import Candidate, CandidateRecord, GenMethod
from lever.generation_config import Matching
from lever.rewards.judges import Slate, StoredThenLive, Verdict, build_judge
from tests.lever.data.test_datasets import load, small_config


def test_stored_scores_are_believed_and_the_rest_is_asked_for() -> None:
    asked: list[Slate] = []

    def live(slates: Sequence[Slate]) -> list[Verdict]:
        asked.extend(slates)
        return [Verdict(0.3) for _ in slates]

    def stored(slates: Sequence[Slate]) -> list[Verdict]:
        return [Verdict(1.0) if slate[0] == 1 else Verdict() for slate in slates]

    found = StoredThenLive(stored, live)([(1, (2, 3)), (4, (5, 6))])
    assert [one.accuracy for one in found] == [1.0, 0.3]
    assert asked == [(4, (5, 6))]


def test_a_probability_that_rl_data_lack_is_asked_for_and_their_accuracy_is_believed() -> None:
    def live(slates: Sequence[Slate]) -> list[Verdict]:
        return [Verdict(0.3, "dog", 0.25) for _ in slates]

    def stored(slates: Sequence[Slate]) -> list[Verdict]:
        return [Verdict(1.0, "cat", beam_score=2.0) for _ in slates]

    [found] = StoredThenLive(stored, live, references=True)([(1, (2, 3))])
    assert found == Verdict(1.0, "cat", 0.25, 2.0)
    [bare] = StoredThenLive(stored, live)([(1, (2, 3))])
    assert bare.answer_prob is None


def test_rl_data_judged_by_another_rule_than_the_rest_are_refused() -> None:
    data = load(small_config())
    assert data.world is not None
    one = Candidate((0, 1), GenMethod.random, vqa_acc_score=0.5, vqa_eval_mode="simple")
    records = [CandidateRecord(data.train[0].query, data.train[0].pool, (one,))]
    answerer = KernelICLAnswerer(data.world)
    assert build_judge(data, answerer, records, rule=Matching.simple)
    with pytest.raises(ValueError, match=r"vqa_eval_mode='simple': .*set rl_data\.matching"):
        build_judge(data, answerer, records)
