"""The judge of slates: scores from RL data, for other slates from the answerer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

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


SlateJudge = Callable[[Sequence[Slate]], list[Verdict]]


class Judge:
    """Looks slates up in RL data and asks the answerer about the others, each once.

    A stored candidate that was scored by a substitute rule (`fallback`, `error`) counts as not
    judged: with two rules in a group, the rule and not the slate would decide.

    Args:
        records: RL data, whose scores are used as they are.
        rule: how answers are judged, in the RL data too.
        answerer: asked about other slates; None = these are not judged.
        answers: query -> the annotators' answers.
        references: query -> the answer whose probability is needed; empty for none.

    Attributes:
        seen: all slates that were judged.

    Raises:
        ValueError: RL data were judged by another rule.
    """

    def __init__(
        self,
        records: Iterable[CandidateRecord] = (),
        rule: Matching = Matching.official,
        answerer: Answerer | None = None,
        answers: Mapping[int, Sequence[str]] | None = None,
        references: Mapping[int, str] | None = None,
    ) -> None:
        self.rule = rule
        self.answerer = answerer
        self.answers = answers or {}
        self.references = references or {}
        self.seen: set[Slate] = set()
        self._known = {
            (record.query, tuple(record.pool[place] for place in one.pointer)): _stored(
                record.query, one, rule
            )
            for record in records
            for one in record.candidates
        }

    def __call__(self, slates: Sequence[Slate]) -> list[Verdict]:
        """Judge slates.

        Raises:
            ValueError: the answerer is asked about a query with no annotators' answers, or too few.
        """
        self.seen.update(slates)
        if self.answerer is not None:
            self._ask(self.answerer, [one for one in dict.fromkeys(slates) if self._lacks(one)])
        return [self._known.get(slate, Verdict()) for slate in slates]

    def _lacks(self, slate: Slate) -> bool:
        found = self._known.get(slate, Verdict())
        probability = slate[0] in self.references and found.answer_prob is None
        return found.accuracy is None or probability

    def _ask(self, answerer: Answerer, slates: Sequence[Slate]) -> None:
        """Add what is unknown of slates; stored scores stay."""
        for query, _ in slates:
            if query not in self.answers:
                raise ValueError(f"query {query}: answers: none known; the reward needs them")
            check_answers(f"query {query}", self.answers[query], self.rule)
        prompts = [Prompted(query, shots) for query, shots in slates]
        probs = self._probabilities(answerer, prompts)
        for slate, said in zip(slates, answerer.generate(prompts), strict=True):
            found = self._known.get(slate, Verdict())
            if found.accuracy is None:
                accuracy = MATCHERS[self.rule](said, self.answers[slate[0]])
                found = replace(found, accuracy=accuracy, prediction=said)
            if found.answer_prob is None:
                found = replace(found, answer_prob=probs.get(slate))
            self._known[slate] = found

    def _probabilities(self, answerer: Answerer, prompts: Sequence[Prompted]) -> dict[Slate, float]:
        asked = [one for one in prompts if one.query in self.references]
        logp = answerer.answer_logprob(asked, [self.references[one.query] for one in asked])
        return {
            (one.query, one.shots): math.exp(value) for one, value in zip(asked, logp, strict=True)
        }


def build_judge(
    data: LeverData,
    answerer: Answerer,
    records: Iterable[CandidateRecord] = (),
    references: bool = False,
    rule: Matching = Matching.official,
) -> Judge:
    """Build the judge of a training; `references`: also ask for the reference's probability."""
    wanted = data.references if references else {}
    return Judge(records, rule, answerer, data.answers, wanted)


def _stored(query: int, one: Candidate, rule: Matching) -> Verdict:
    judged = one.vqa_eval_mode in EVAL_NAMES.values()
    if judged and one.vqa_eval_mode != EVAL_NAMES[rule]:
        raise ValueError(
            f"query {query}: vqa_eval_mode={one.vqa_eval_mode!r}: these RL data were judged by "
            f"another rule than the rest of the run: expected {EVAL_NAMES[rule]!r}: set "
            "rl_data.matching to theirs (official is vqaEval), or make them anew"
        )
    accuracy = one.vqa_acc_score if judged else None
    return Verdict(accuracy, one.vqa_pred_answer, one.vqa_gt_prob, one.beam_score)
