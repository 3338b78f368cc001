"""A stand-in for a model: it answers questions of any data set from demonstrations.

    logit(a) = log p(a | how the question begins)
             + sum_j w_j strength exp((cos_j - 1) / width) [a_j = a]

p counts the answers in the bank to questions with the same first words, without the query's own;
cos_j is the mean of the cosines of question and picture; w_j grows towards the last demonstration.
It reads no picture and no other word, so its scores show the effect of the choice on this rule, and
nothing about a vision-language model.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lever.data.datasets import LeverData, Prompted
from lever.data.world import Floats, Ints

TEXT_KERNEL_VERSION = 1  # raise when a change of this file changes an answer
FIRST_WORDS = 2  # words of a question that select its prior
SMOOTHING = 5.0  # weight of the overall frequencies in each prior, in questions
STRENGTH, WIDTH = 12.0, 0.5
EARLIER_WEIGHT = 0.85  # weight of a demonstration relative to the one after it


@dataclass(frozen=True)
class _Prior:
    """Log-frequencies of the answers to one query, without demonstrations."""

    logits_A: Floats
    top: int
    log_sum: float


class TextKernelAnswerer:
    """Answers from frequencies and from demonstrations that are similar to the query.

    Its answers are those of the bank; all other answers are scored as one further answer.
    """

    def __init__(self, data: LeverData) -> None:
        self.data = data
        bank = [data.items[item].answer for item in data.demos]
        self._texts = [*dict.fromkeys(bank)]
        self._place = {text: place for place, text in enumerate(self._texts)}
        self._unknown = len(self._texts)
        self._bank = [self._place[text] for text in bank]
        self._overall = np.bincount(self._bank, minlength=self._unknown + 1).astype(np.float64)
        self._by_start: dict[str, Counter[int]] = defaultdict(Counter)
        for item, place in zip(data.demos, self._bank, strict=True):
            self._by_start[self._start(item)][place] += 1
        self._priors: dict[int, _Prior] = {}

    @property
    def fingerprint(self) -> str:
        return f"text-kernel-{TEXT_KERNEL_VERSION}-{self.data.fingerprint}"

    def generate(self, prompts: Sequence[Prompted]) -> list[str]:
        said = []
        for prompt in prompts:
            prior, evidence = self._read(prompt)
            # Evidence is not negative: the best answer is the prior's or a demonstration's.
            scores = {place: prior.logits_A[place] + more for place, more in evidence.items()}
            scores.setdefault(prior.top, prior.logits_A[prior.top])
            said.append(self._texts[max(scores, key=lambda place: (scores[place], -place))])
        return said

    def answer_logprob(self, prompts: Sequence[Prompted], answers: Sequence[str]) -> list[float]:
        """Return the log-probability of each answer, which counts as one token."""
        values = []
        for prompt, answer in zip(prompts, answers, strict=True):
            prior, evidence = self._read(prompt)
            added = sum(
                math.exp(prior.logits_A[place] - prior.log_sum) * math.expm1(more)
                for place, more in evidence.items()
            )
            place = self._place.get(answer, self._unknown)
            logit = prior.logits_A[place] - prior.log_sum + evidence.get(place, 0.0)
            values.append(float(logit - math.log1p(added)))
        return values

    def pair_answers(self, query: int, pool: Sequence[int]) -> tuple[list[str], Ints]:
        """Answer a query with every ordered pair of a pool of K, with the result of `generate`.

        Returns:
            Texts, and for each pair (row: first, column: last) the index of its answer among them,
            [K, K]; -1 on the diagonal.
        """
        prior = self._prior(query)
        place_K = np.array([self._place[self.data.items[shot].answer] for shot in pool])
        last_K = np.array(
            [STRENGTH * math.exp((like - 1) / WIDTH) for like in self._like(query, pool)]
        )
        first_K1, same_KK = EARLIER_WEIGHT * last_K[:, None], place_K[:, None] == place_K
        top_K = place_K == prior.top
        logit_K = prior.logits_A[place_K]
        # The best answer is the prior's or that of one of the two demonstrations.
        score = np.stack(
            [
                prior.logits_A[prior.top] + (top_K * last_K + top_K[:, None] * first_K1),
                logit_K[:, None] + (same_KK * last_K + first_K1),
                logit_K + (last_K + same_KK * first_K1),
            ]
        )
        shape = same_KK.shape
        said = np.stack(
            [np.broadcast_to(one, shape) for one in (prior.top, place_K[:, None], place_K)]
        )
        # Of equal answers the first, as in `generate`.
        best_KK = np.where(score == score.max(axis=0), said, self._unknown).min(axis=0)
        np.fill_diagonal(best_KK, -1)
        return self._texts, best_KK

    def _like(self, query: int, shots: Sequence[int]) -> list[float]:
        """Return the means of the cosines of question and picture."""
        rows, (text, image) = list(shots), (self.data.text_ND, self.data.image_ND)
        cosine: list[float] = ((text[rows] @ text[query] + image[rows] @ image[query]) / 2).tolist()
        return cosine

    def _read(self, prompt: Prompted) -> tuple[_Prior, dict[int, float]]:
        evidence: dict[int, float] = defaultdict(float)
        if prompt.shots:
            likes = self._like(prompt.query, prompt.shots)
            pairs = zip(prompt.shots[::-1], likes[::-1], strict=True)
            for back, (shot, like) in enumerate(pairs):
                place = self._place[self.data.items[shot].answer]
                evidence[place] += EARLIER_WEIGHT**back * STRENGTH * math.exp((like - 1) / WIDTH)
        return self._prior(prompt.query), evidence

    def _prior(self, query: int) -> _Prior:
        if query not in self._priors:
            counts, overall = np.zeros_like(self._overall), self._overall.copy()
            for place, count in self._by_start[self._start(query)].items():
                counts[place] = count
            if query in self.data.demos:  # the query's own answer must not count
                own = self._bank[self.data.demos.index(query)]
                counts[own] -= 1
                overall[own] -= 1
            overall = (overall + 1 / len(overall)) / (overall.sum() + 1)
            share = (counts + SMOOTHING * overall) / (counts.sum() + SMOOTHING)
            logits = np.log(share)
            top = int(logits[: self._unknown].argmax())
            self._priors[query] = _Prior(logits, top, float(np.logaddexp.reduce(logits)))
        return self._priors[query]

    def _start(self, item: int) -> str:
        return " ".join(self.data.question_of(item).text.lower().split()[:FIRST_WORDS])
