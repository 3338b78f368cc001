"""The judge: stored scores first, the answerer for the rest."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lever.answerers.protocol import KernelICLAnswerer
from lever.candidates.rl_records import Candidate, CandidateRecord, GenMethod
from lever.data.datasets import Prompted
from lever.generation_config import Matching
from lever.rewards.judges import Judge, Verdict, build_judge
from tests.lever.data.test_datasets import load, small_config

ANSWERS = {1: ("dog",) * 4, 4: ("dog",) * 4}


class Dogs:
    """Answers "dog" to everything, with probability 1, and notes what it was asked."""

    fingerprint = "dogs"

    def __init__(self) -> None:
        self.asked: list[Prompted] = []

    def generate(self, prompts: Sequence[Prompted]) -> list[str]:
        self.asked.extend(prompts)
        return ["dog"] * len(prompts)

    def answer_logprob(self, prompts: Sequence[Prompted], answers: Sequence[str]) -> list[float]:
        return [0.0] * len(prompts)


def record(one: Candidate) -> CandidateRecord:
    return CandidateRecord(1, (2, 3), (one,))


STORED = record(Candidate((0, 1), GenMethod.beam, 0, 2.0, vqa_pred_answer="cat", vqa_acc_score=0.3))


def test_stored_scores_are_believed_and_the_rest_is_asked_for_once() -> None:
    answerer = Dogs()
    judge = Judge([STORED], answerer=answerer, answers=ANSWERS)
    for _ in range(2):
        found = judge([(1, (2, 3)), (4, (5, 6)), (4, (5, 6))])
        assert [one.accuracy for one in found] == [0.3, 1.0, 1.0]
    assert answerer.asked == [Prompted(4, (5, 6))]
    assert judge.seen == {(1, (2, 3)), (4, (5, 6))}


def test_without_an_answerer_other_slates_are_not_judged() -> None:
    assert Judge([STORED])([(1, (3, 2)), (4, (5, 6))]) == [Verdict(), Verdict()]


def test_a_probability_that_rl_data_lack_is_asked_for_and_their_accuracy_is_believed() -> None:
    [found] = Judge([STORED], answerer=Dogs(), answers=ANSWERS, references={1: "dog"})(
        [(1, (2, 3))]
    )
    assert found == Verdict(0.3, "cat", 1.0, 2.0)
    [bare] = Judge([STORED], answerer=Dogs(), answers=ANSWERS)([(1, (2, 3))])
    assert bare.answer_prob is None


@pytest.mark.parametrize("mode", ["fallback", "simple_match"])
def test_a_score_by_a_substitute_rule_is_replaced_and_the_beams_is_kept(mode: str) -> None:
    one = Candidate((0, 1), GenMethod.beam, 0, 2.0, vqa_acc_score=0.9, vqa_eval_mode=mode)
    assert Judge([record(one)])([(1, (2, 3))]) == [Verdict(beam_score=2.0)]
    [found] = Judge([record(one)], answerer=Dogs(), answers=ANSWERS)([(1, (2, 3))])
    assert found == Verdict(1.0, "dog", None, 2.0)


def test_rl_data_judged_by_another_rule_than_the_rest_are_refused() -> None:
    data = load(small_config())
    assert data.world is not None
    one = Candidate((0, 1), GenMethod.random, vqa_acc_score=0.5, vqa_eval_mode="simple")
    records = [CandidateRecord(data.train[0].query, data.train[0].pool, (one,))]
    answerer = KernelICLAnswerer(data.world)
    assert build_judge(data, answerer, records, rule=Matching.simple)
    with pytest.raises(ValueError, match=r"vqa_eval_mode='simple': .*set rl_data\.matching"):
        build_judge(data, answerer, records)
