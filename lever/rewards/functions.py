"""What a slate is worth, on three levels; `core_rl.objective.rewards.WeightedReward` weighs them.

beam      `BeamScore`: the score its beam was found with, where a beam found it
sequence  `Coherence`, `Diversity`: of the demonstrations' features, without any answerer
task      `Soft` (VQA accuracy), `Hard` (right or wrong), `AnswerProbability`, `Relevance`

The published mixtures are weights: alpha * beam + beta * correctness is `BeamScore` and `Hard` with
those weights, "hard plus soft" is `Hard` and `Soft`.  A reward that has nothing to judge by says
None; it never falls back on another rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

from core_rl.types import Actions
from lever.answerers.protocol import Answerer
from lever.candidates.rl_records import EVAL_NAMES, Candidate, CandidateRecord
from lever.data.datasets import Prompted
from lever.data.vqa_accuracy import MATCHERS, check_answers, normalise
from lever.features.slate_features import Features, SlateQuery
from lever.generation_config import Matching

Values = list[list[float | None]]
Slate = tuple[int, tuple[int, ...]]  # query and demonstrations, both global ids, in prompt order


@dataclass(frozen=True)
class Verdict:
    """What is known of one slate; None where it is not.

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
    """Says what slates are worth, many at a time."""

    def __call__(self, slates: Sequence[Slate]) -> list[Verdict]: ...


class LiveJudge:
    """Asks the answerer and scores its answers by one rule.

    Args:
        answerer: should be cached: each reward asks on its own.
        answers: query -> the annotators' answers.
        references: query -> the answer whose probability is wanted; empty to leave it out.
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
        """Judge slates; each is asked once in the life of this judge.

        Raises:
            ValueError: a query without annotators' answers, or with too few.
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
    """Looks slates up in RL data; what is not in it cannot be judged.

    A candidate scored by a substitute rule (`fallback`, `error`) counts as not judged: mixing rules
    inside a group makes the rule, not the slate, decide.

    Args:
        records: RL data.
        rule: that the others were scored by.

    Raises:
        ValueError: one was scored by another rule.
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


def _verdict(query: int, one: Candidate, rule: Matching) -> Verdict:
    judged = one.vqa_eval_mode in EVAL_NAMES.values()
    if judged and one.vqa_eval_mode != EVAL_NAMES[rule]:
        raise ValueError(
            f"query {query}: vqa_eval_mode={one.vqa_eval_mode!r}: these RL data were judged by "
            f"another rule than the rest of the run: expected {EVAL_NAMES[rule]!r}: set "
            "rl_data.matching to theirs (official is vqaEval), or make them anew"
        )
    return Verdict(
        one.vqa_acc_score if judged else None,
        one.vqa_pred_answer,
        one.vqa_gt_prob,
        one.beam_score,
    )


class Soft:
    """VQA accuracy."""

    def __init__(self, judge: SlateJudge) -> None:
        self.judge = judge

    def __call__(self, queries: Sequence[SlateQuery], actions: Actions) -> Values:
        return _judged(self.judge, queries, actions, lambda _, verdict: verdict.accuracy)


class Hard:
    """1 where any annotator agrees, else 0; -1 with `plus_minus`."""

    def __init__(self, judge: SlateJudge, plus_minus: bool = False) -> None:
        self.judge = judge
        self.wrong = -1.0 if plus_minus else 0.0

    def __call__(self, queries: Sequence[SlateQuery], actions: Actions) -> Values:
        def value(_: int, verdict: Verdict) -> float | None:
            if verdict.accuracy is None:
                return None
            return 1.0 if verdict.accuracy > 0 else self.wrong

        return _judged(self.judge, queries, actions, value)


class AnswerProbability:
    """Probability of the reference answer."""

    def __init__(self, judge: SlateJudge) -> None:
        self.judge = judge

    def __call__(self, queries: Sequence[SlateQuery], actions: Actions) -> Values:
        return _judged(self.judge, queries, actions, lambda _, verdict: verdict.answer_prob)


class BeamScore:
    """Score of the beam that found the slate; None for what no beam found."""

    def __init__(self, judge: SlateJudge) -> None:
        self.judge = judge

    def __call__(self, queries: Sequence[SlateQuery], actions: Actions) -> Values:
        return _judged(self.judge, queries, actions, lambda _, verdict: verdict.beam_score)


class Relevance:
    """Credit for a wrong answer that shares words with a right one: the best F1 of words.

    0 for a right answer, which `Hard` and `Soft` pay for.

    Args:
        judge: says what was answered.
        answers: query -> the annotators' answers.
    """

    def __init__(self, judge: SlateJudge, answers: Mapping[int, Sequence[str]]) -> None:
        self.judge = judge
        self.answers = answers

    def __call__(self, queries: Sequence[SlateQuery], actions: Actions) -> Values:
        def value(query: int, verdict: Verdict) -> float | None:
            if verdict.accuracy is None:
                return None
            if verdict.accuracy > 0:
                return 0.0
            return max(word_f1(verdict.prediction, answer) for answer in self.answers[query])

        return _judged(self.judge, queries, actions, value)


class Coherence:
    """Mean cosine of the demonstrations to the query, in [-1, 1]."""

    def __init__(self, features: Features) -> None:
        self.features = features

    def __call__(self, queries: Sequence[SlateQuery], actions: Actions) -> Values:
        def value(slate: Slate) -> float:
            query, shots = slate
            wanted_D = normalize(self.features.of_query(query), dim=-1)
            return (_unit(self.features, query, shots) @ wanted_D).mean().item()

        return _each(queries, actions, value)


class Diversity:
    """1 - mean cosine between two demonstrations, in [0, 2]; 0 for a single one."""

    def __init__(self, features: Features) -> None:
        self.features = features

    def __call__(self, queries: Sequence[SlateQuery], actions: Actions) -> Values:
        def value(slate: Slate) -> float:
            query, shots = slate
            if len(shots) < 2:
                return 0.0
            rows_SD = _unit(self.features, query, shots)
            first, second = torch.triu_indices(len(shots), len(shots), offset=1)
            return 1 - (rows_SD @ rows_SD.T)[first, second].mean().item()

        return _each(queries, actions, value)


def word_f1(one: str, other: str) -> float:
    """F1 of the words of two normalised texts, in [0, 1]."""
    words, wanted = normalise(one).split(), normalise(other).split()
    shared = sum(min(words.count(word), wanted.count(word)) for word in set(words))
    return 2 * shared / (len(words) + len(wanted)) if shared else 0.0


def slates_of(queries: Sequence[SlateQuery], actions: Actions) -> list[list[Slate | None]]:
    """Global ids of every candidate; None for padding."""
    return [
        [
            (query.query, _shots(query.pool, ids, mask)) if any(mask) else None
            for ids, mask in zip(ids_GT, mask_GT, strict=True)
        ]
        for query, ids_GT, mask_GT in zip(
            queries, actions.ids_BGT.tolist(), actions.mask_BGT.tolist(), strict=True
        )
    ]


def _shots(pool: Sequence[int], ids: Sequence[int], mask: Sequence[bool]) -> tuple[int, ...]:
    """Global ids of the real steps; a place behind the pool is the choice to stop."""
    real = [i for i, kept in zip(ids, mask, strict=True) if kept]
    return tuple(pool[i] for i in real if i < len(pool))


def _judged(
    judge: SlateJudge,
    queries: Sequence[SlateQuery],
    actions: Actions,
    value: Callable[[int, Verdict], float | None],
) -> Values:
    """Judge all real candidates in one call."""
    table = slates_of(queries, actions)
    real = [slate for row in table for slate in row if slate is not None]
    verdicts = dict(zip(real, judge(real), strict=True))
    return [
        [None if slate is None else value(slate[0], verdicts[slate]) for slate in row]
        for row in table
    ]


def _each(
    queries: Sequence[SlateQuery], actions: Actions, value: Callable[[Slate], float]
) -> Values:
    table = slates_of(queries, actions)
    return [[None if slate is None else value(slate) for slate in row] for row in table]


def _unit(features: Features, query: int, ids: tuple[int, ...]) -> Tensor:
    return normalize(features.of(query, ids, "slate"), dim=-1)
