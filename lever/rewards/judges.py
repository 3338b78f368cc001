"""Judges: the accuracy of slates, from RL data or by asking the answerer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from lever.answerers.protocol import Answerer
from lever.candidates.rl_records import EVAL_NAMES, Candidate, CandidateRecord
from lever.data.datasets import LeverData, Prompted
from lever.data.vqa_accuracy import MATCHERS, check_answers
from lever.generation_config import Matching

Slate = tuple[int, tuple[int, ...]]  # query and demonstrations, both global ids, in prompt order


@dataclass(frozen=True)
class Verdict:
    """The scores of one slate; None where unknown.

    Attributes:
        accuracy: VQA accuracy of the answer, in [0, 1].
        prediction: the answer.
        answer_prob: probability of the reference answer, in [0, 1].
        beam_score: of the beam that found the slate.
    """

    accuracy: float | None = None
    prediction: str = ""
    answer_prob: float | None = None
    beam_score: float | None = None


class SlateJudge(Protocol):
    """Judges slates, many at a time."""

    def __call__(self, slates: Sequence[Slate]) -> list[Verdict]: ...


class LiveJudge:
    """Asks the answerer and scores its answers by one rule.

    Args:
        answerer: asked once for each slate.
        answers: query -> the annotators' answers.
        references: query -> the answer whose probability is needed; empty for none.
        rule: how an answer is judged.
    """

    def __init__(
        self,
        answerer: Answerer,
        answers: Mapping[int, Sequence[str]],
        references: Mapping[int, str] | None = None,
        rule: Matching = Matching.official,
    ) -> None:
        self.answerer = answerer
        self.rule = rule
        self.answers = answers
        self.references = references or {}
        self._known: dict[Slate, Verdict] = {}

    def __call__(self, slates: Sequence[Slate]) -> list[Verdict]:
        """Judge slates.

        Raises:
            ValueError: a query has no annotators' answers, or too few.
        """
        new = [slate for slate in dict.fromkeys(slates) if slate not in self._known]
        for query, _ in new:
            if query not in self.answers:
                raise ValueError(f"query {query}: answers: none known; the reward needs them")
            check_answers(f"query {query}", self.answers[query], self.rule)
        prompts = [Prompted(query, shots) for query, shots in new]
        probs = self._probabilities(prompts)
        for slate, said in zip(new, self.answerer.generate(prompts), strict=True):
            accuracy = MATCHERS[self.rule](said, self.answers[slate[0]])
            self._known[slate] = Verdict(accuracy, said, probs.get(slate))
        return [self._known[slate] for slate in slates]

    def _probabilities(self, prompts: Sequence[Prompted]) -> dict[Slate, float]:
        asked = [one for one in prompts if one.query in self.references]
        wanted = [self.references[one.query] for one in asked]
        logp = self.answerer.answer_logprob(asked, wanted)
        return {
            (one.query, one.shots): math.exp(value) for one, value in zip(asked, logp, strict=True)
        }


class StoredJudge:
    """Looks slates up in RL data; other slates are not judged.

    A candidate scored by a substitute rule (`fallback`, `error`) counts as not judged: with two
    rules in a group, the rule and not the slate would decide.

    Args:
        records: RL data.
        rule: of their scores.

    Raises:
        ValueError: a candidate was scored by another rule.
    """

    def __init__(
        self, records: Iterable[CandidateRecord], rule: Matching = Matching.official
    ) -> None:
        self._known = {
            (record.query, tuple(record.pool[place] for place in one.pointer)): _verdict(
                record.query, one, rule
            )
            for record in records
            for one in record.candidates
        }

    def __call__(self, slates: Sequence[Slate]) -> list[Verdict]:
        return [self._known.get(slate, Verdict()) for slate in slates]


class StoredThenLive:
    """Looks slates up in RL data and asks the answerer about the others.

    Args:
        stored: the RL data.
        live: judges the rest.
        references: the probability of the reference answer is needed too; RL data made with
            `rl_data.gt_prob=false` lack it.
    """

    def __init__(self, stored: SlateJudge, live: SlateJudge, references: bool = False) -> None:
        self.stored = stored
        self.live = live
        self.references = references

    def __call__(self, slates: Sequence[Slate]) -> list[Verdict]:
        verdicts = self.stored(slates)
        unknown = [
            slate
            for slate, verdict in zip(slates, verdicts, strict=True)
            if verdict.accuracy is None or (self.references and verdict.answer_prob is None)
        ]
        asked = dict(zip(unknown, self.live(unknown), strict=True))
        return [
            _joined(found, asked[slate]) if slate in asked else found
            for slate, found in zip(slates, verdicts, strict=True)
        ]


class CountedJudge:
    """Keeps the set of judged slates.

    Args:
        judge: judges them.
    """

    def __init__(self, judge: SlateJudge) -> None:
        self.judge = judge
        self.seen: set[Slate] = set()

    def __call__(self, slates: Sequence[Slate]) -> list[Verdict]:
        self.seen.update(slates)
        return self.judge(slates)


def build_judge(
    data: LeverData,
    answerer: Answerer,
    records: Iterable[CandidateRecord] = (),
    references: bool = False,
    rule: Matching = Matching.official,
) -> StoredThenLive:
    """Build the judge of a training.

    Args:
        data: with the annotators' answers.
        answerer: should have a cache.
        records: RL data, whose scores are used as they are.
        references: also ask for the probability of the reference answer.
        rule: how answers are judged.

    Raises:
        ValueError: RL data were judged by another rule.
    """
    wanted = data.references if references else {}
    live = LiveJudge(answerer, data.answers, wanted, rule)
    return StoredThenLive(StoredJudge(records, rule), live, references)


def _verdict(query: int, one: Candidate, rule: Matching) -> Verdict:
    judged = one.vqa_eval_mode in EVAL_NAMES.values()
    if judged and one.vqa_eval_mode != EVAL_NAMES[rule]:
        raise ValueError(
            f"query {query}: vqa_eval_mode={one.vqa_eval_mode!r}: these RL data were judged by "
            f"another rule than the rest of the run: expected {EVAL_NAMES[rule]!r}: set "
            "rl_data.matching to theirs (official is vqaEval), or make them anew"
        )
    accuracy = one.vqa_acc_score if judged else None
    return Verdict(accuracy, one.vqa_pred_answer, one.vqa_gt_prob, one.beam_score)


def _joined(stored: Verdict, live: Verdict) -> Verdict:
    """Fill the gaps of a stored verdict; its own scores are kept."""
    said = live if stored.accuracy is None else stored
    prob = live.answer_prob if stored.answer_prob is None else stored.answer_prob
    return replace(said, answer_prob=prob, beam_score=stored.beam_score)
