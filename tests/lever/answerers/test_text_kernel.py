"""The stand-in for data without a generated world."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lever.answerers.text_kernel import (
    EARLIER_WEIGHT,
    SMOOTHING,
    STRENGTH,
    WIDTH,
    TextKernelAnswerer,
)
from lever.data.datasets import LeverData, Prompted
from lever.data.sources import Item
from lever.data.vqa_files import Question
from tests.lever.data.test_datasets import load, small_config

# Bank: three questions of one beginning, one of another; then a query of each.
ASKED = [
    ("What colour is it?", "red"),
    ("What colour was that?", "red"),
    ("What colour is this?", "blue"),
    ("How many are there?", "two"),
    ("What colour is the bus?", "green"),
    ("Why not?", "rain"),
]


def tiny() -> LeverData:
    """Six questions with embeddings in float64.

    Likenesses enter exp(cos / width) with a slope of up to 24: in float32 the rounding of a cosine,
    which depends on the processor, shows in the sixth digit of a logit.
    """
    items = tuple(
        Item(Question(number, number, text, (answer,) * 10), answer)
        for number, (text, answer) in enumerate(ASKED)
    )
    rows = torch.nn.functional.normalize(
        torch.randn(6, 8, generator=torch.Generator().manual_seed(0)).double(), dim=-1
    )
    whole = load(small_config())
    return replace(
        whole, items=items, demos=range(4), image_ND=rows, text_ND=rows.flip(1), world=None
    )


def every(answerer: TextKernelAnswerer, prompt: Prompted) -> dict[str, float]:
    texts = ["red", "blue", "two", "something else"]
    return dict(zip(texts, answerer.answer_logprob([prompt] * 4, texts), strict=True))


@pytest.mark.parametrize("shots", [(), (0,), (2, 0), (0, 1, 2), (3, 2, 1, 0)])
def test_probabilities_sum_to_one_and_peak_at_the_generation(shots: tuple[int, ...]) -> None:
    answerer = TextKernelAnswerer(tiny())
    values = every(answerer, Prompted(4, shots))
    assert sum(map(math.exp, values.values())) == pytest.approx(1)
    [said] = answerer.generate([Prompted(4, shots)])
    known = {text: value for text, value in values.items() if text != "something else"}
    assert said == max(known, key=lambda text: known[text])


def test_the_prior_counts_questions_that_begin_alike() -> None:
    overall = np.array([2, 1, 1, 0]) + 0.25
    overall /= overall.sum()
    share = (np.array([2, 1, 0, 0]) + SMOOTHING * overall) / (3 + SMOOTHING)
    values = every(TextKernelAnswerer(tiny()), Prompted(4))
    assert list(values.values()) == pytest.approx(np.log(share).tolist())


def test_a_query_of_the_bank_does_not_read_its_own_answer() -> None:
    answerer = TextKernelAnswerer(tiny())
    assert every(answerer, Prompted(2))["blue"] < every(answerer, Prompted(4))["blue"] - 1


def test_evidence_follows_likeness_and_place() -> None:
    data = tiny()
    answerer = TextKernelAnswerer(data)

    def cosine(shot: int) -> float:
        text, image = data.text_ND, data.image_ND
        return float(text[shot] @ text[4] + image[shot] @ image[4]) / 2

    def odds(shots: tuple[int, ...]) -> float:
        values = every(answerer, Prompted(4, shots))
        return values["blue"] - values["two"]

    blue, two = (STRENGTH * math.exp((cosine(shot) - 1) / WIDTH) for shot in (2, 3))
    assert odds((3, 2)) - odds(()) == pytest.approx(blue - EARLIER_WEIGHT * two)
    assert odds((2, 3)) - odds(()) == pytest.approx(EARLIER_WEIGHT * blue - two)


def test_the_fingerprint_is_of_the_data() -> None:
    data = tiny()
    other = replace(data, fingerprint="other")
    assert TextKernelAnswerer(data).fingerprint != TextKernelAnswerer(other).fingerprint


def test_all_pairs_at_once_are_answered_as_one_by_one() -> None:
    answerer, pool = TextKernelAnswerer(tiny()), (2, 0, 3, 1)
    for query in (4, 5):
        texts, said = answerer.pair_answers(query, pool)
        assert said.diagonal().tolist() == [-1] * 4
        for first, last in itertools.permutations(range(4), 2):
            [alone] = answerer.generate([Prompted(query, (pool[first], pool[last]))])
            assert texts[said[first, last]] == alone
