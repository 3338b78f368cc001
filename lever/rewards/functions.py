"""Reward functions of a slate on three levels; `core_rl.objective.rewards` adds them up.

beam      `BeamScore`: the score of the beam that found the slate, if one did
sequence  `Coherence`, `Diversity`: of the demonstrations' features, without an answerer
task      `Soft` (VQA accuracy), `Hard` (right or wrong), `AnswerProbability`, `Relevance`

The published mixtures are weights: alpha * beam + beta * correctness is `BeamScore` and `Hard` with
these weights, "hard plus soft" is `Hard` and `Soft`.  A reward that cannot judge a slate returns
None; it never falls back on another rule.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from core_rl.types import Actions
from lever.data.vqa_accuracy import normalise
from lever.features.slate_features import Features, SlateQuery
from lever.rewards.judges import Slate, SlateJudge, Verdict

Values = list[list[float | None]]


class _OfVerdict(ABC):
    """A reward that follows from the judge's verdict on each slate."""

    def __init__(self, judge: SlateJudge) -> None:
        self.judge = judge

    @abstractmethod
    def value(self, query: int, verdict: Verdict) -> float | None: ...

    def __call__(self, queries: Sequence[SlateQuery], actions: Actions) -> Values:
        table = slates_of(queries, actions)
        real = [slate for row in table for slate in row if slate is not None]
        verdicts = dict(zip(real, self.judge(real), strict=True))
        return [
            [None if slate is None else self.value(slate[0], verdicts[slate]) for slate in row]
            for row in table
        ]


class Soft(_OfVerdict):
    """VQA accuracy."""

    def value(self, query: int, verdict: Verdict) -> float | None:
        return verdict.accuracy


class Hard(_OfVerdict):
    """1 if any annotator agrees, else 0; else -1 with `plus_minus`."""

    def __init__(self, judge: SlateJudge, plus_minus: bool = False) -> None:
        super().__init__(judge)
        self.wrong = -1.0 if plus_minus else 0.0

    def value(self, query: int, verdict: Verdict) -> float | None:
        if verdict.accuracy is None:
            return None
        return 1.0 if verdict.accuracy > 0 else self.wrong


class AnswerProbability(_OfVerdict):
    """Probability of the reference answer."""

    def value(self, query: int, verdict: Verdict) -> float | None:
        return verdict.answer_prob


class BeamScore(_OfVerdict):
    """Score of the beam that found the slate; None for other slates."""

    def value(self, query: int, verdict: Verdict) -> float | None:
        return verdict.beam_score


class Relevance(_OfVerdict):
    """Partial credit for a wrong answer: its best word F1 with the annotators' answers.

    0 for a right answer, which `Hard` and `Soft` reward.

    Args:
        judge: gives the answer.
        answers: query -> the annotators' answers.
    """

    def __init__(self, judge: SlateJudge, answers: Mapping[int, Sequence[str]]) -> None:
        super().__init__(judge)
        self.answers = answers

    def value(self, query: int, verdict: Verdict) -> float | None:
        if verdict.accuracy is None:
            return None
        if verdict.accuracy > 0:
            return 0.0
        return max(word_f1(verdict.prediction, answer) for answer in self.answers[query])


class _OfFeatures(ABC):
    """A reward that follows from the features of query and demonstrations."""

    def __init__(self, features: Features) -> None:
        self.features = features

    @abstractmethod
    def value(self, query: int, rows_SD: Tensor) -> float:
        """Judge a slate by the unit vectors of its demonstrations."""

    def __call__(self, queries: Sequence[SlateQuery], actions: Actions) -> Values:
        return [
            [
                None
                if slate is None
                else self.value(slate[0], normalize(self.features.of(*slate, "slate"), dim=-1))
                for slate in row
            ]
            for row in slates_of(queries, actions)
        ]


class Coherence(_OfFeatures):
    """Mean cosine of the demonstrations to the query, in [-1, 1]."""

    def value(self, query: int, rows_SD: Tensor) -> float:
        wanted_D = normalize(self.features.of_query(query), dim=-1)
        return (rows_SD @ wanted_D).mean().item()


class Diversity(_OfFeatures):
    """1 - mean cosine between two demonstrations, in [0, 2]; 0 for a single one."""

    def value(self, query: int, rows_SD: Tensor) -> float:
        shots = len(rows_SD)
        if shots < 2:
            return 0.0
        first, second = torch.triu_indices(shots, shots, offset=1)
        return 1 - (rows_SD @ rows_SD.T)[first, second].mean().item()


def word_f1(one: str, other: str) -> float:
    """F1 of the words of two normalised texts, in [0, 1]."""
    words, wanted = normalise(one).split(), normalise(other).split()
    shared = sum(min(words.count(word), wanted.count(word)) for word in set(words))
    return 2 * shared / (len(words) + len(wanted)) if shared else 0.0


def slates_of(queries: Sequence[SlateQuery], actions: Actions) -> list[list[Slate | None]]:
    """Return the global ids of every candidate; None for padding."""
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
    """Return the global ids of the real steps; a place beyond the pool is the stop."""
    real = [i for i, kept in zip(ids, mask, strict=True) if kept]
    return tuple(pool[i] for i in real if i < len(pool))
