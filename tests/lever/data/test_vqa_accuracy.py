from __future__ import annotations

import functools
import re

import pytest

from lever.data.vqa_accuracy import (
    CONTRACTIONS,
    NUMBERS,
    PUNCTUATION,
    evaluate,
    normalise,
    simple_match,
    vqa_accuracy,
)
from lever.data.vqa_files import Question
from lever.generation_config import Matching
from tests.lever.okvqa import okvqa_questions


@pytest.mark.parametrize(
    ("matches", "accuracy"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)]
)
def test_ten_annotators_give_the_closed_form(matches: int, accuracy: float) -> None:
    answers = ["dog"] * matches + ["cat"] * (10 - matches)
    assert vqa_accuracy("dog", answers) == pytest.approx(accuracy, abs=1e-12)


@pytest.mark.parametrize(("pairs", "accuracy"), [(0, 0.0), (1, 0.6), (2, 1.0), (5, 1.0)])
def test_okvqa_counts_five_annotators_twice(pairs: int, accuracy: float) -> None:
    answers = ["surf"] * 2 * pairs + ["swim"] * 2 * (5 - pairs)
    assert vqa_accuracy("surf", answers) == pytest.approx(accuracy, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The dog.", "dog"),
        ("two", "2"),
        ("none", "0"),
        ("eleven", "eleven"),
        ("a an the", ""),
        ("dont", "don't"),
        ("Dont", "don't"),
        ("couldn'tve", "couldn't've"),
        ("couldntve", "couldntve"),
        ("ow's'at", "'ow's'at"),
        ("somebody'd", "somebodyd"),
        ("Im", "im"),
        ("its", "its"),
        ("12,000", "12000"),
        ("12,000 a-b", "12000 ab"),
        ("a-b", "b"),
        ("red,green", "red green"),
        ("red, green", "red green"),
        ("red, green-ish,blue", "red green ishblue"),
        ("yes!", "yes"),
        ("{x}", "x"),
        ("50%", "50%"),
        ("10:30", "10:30"),
        ("$5", "$5"),
        ("3.", "3"),
        ("3.5", "3.5"),
        (".5", ".5"),
        ("u.s.a.", "usa"),
        ("." * 40, "." * 8),
    ],
)
def test_normalisation(text: str, normal: str) -> None:
    assert normalise(text) == normal


def test_the_tables_have_their_published_sizes() -> None:
    assert len(PUNCTUATION) == len(set(PUNCTUATION)) == 21
    assert len(NUMBERS) == 12
    # Of the published 120 keys "let's" and "she's" stand for themselves and four begin with a
    # capital that lowered text never has.
    assert len(CONTRACTIONS) == 120 - 2 - 4


def test_unanimous_answers_are_compared_raw() -> None:
    assert vqa_accuracy("dog", ["The dog."] * 10) == 0
    assert vqa_accuracy("The dog.", ["The dog."] * 10) == 1
    assert vqa_accuracy("2", ["two"] * 10) == 0
    # One who differs is enough for both sides to be normalised.
    assert vqa_accuracy("2", ["two"] * 9 + ["three"]) == 1


def test_line_breaks_do_not_make_answers_differ() -> None:
    assert vqa_accuracy("dog\n", ["dog"] * 9 + [" dog\t"]) == 1
    assert vqa_accuracy("The\ndog", ["The dog"] * 10) == 1


def test_annotators_are_told_apart_by_place_not_by_what_they_said() -> None:
    assert vqa_accuracy("dog", ["dog", "dog", "cat"]) == pytest.approx((1 / 3 + 1 / 3 + 2 / 3) / 3)


@pytest.mark.parametrize(
    ("prediction", "answers", "score"),
    [
        ("the Dog", ["dog"], 1.0),
        ("brown dog", ["dog"], 0.5),
        ("dog", ["big brown dog", "wolf"], 0.5),
        ("cat", ["category"], 0.0),
        ("", ["dog"], 0.0),
        ("a", ["the"], 1.0),  # both are nothing but an article
    ],
)
def test_simple_match(prediction: str, answers: list[str], score: float) -> None:
    assert simple_match(prediction, answers) == score


@pytest.mark.parametrize("score", [vqa_accuracy, simple_match])
def test_no_answers_is_an_error(score) -> None:
    with pytest.raises(ValueError, match="answers: expected at least one"):
        score("dog", [])


def question(key: int, answer: str, kind: str = "other", count: int = 10) -> Question:
    rest = (f"not {answer}",) * (10 - count)
    return Question(key, key, "what?", (answer,) * count + rest, kind, f"q{key % 2}")


def test_the_table_averages_unrounded_and_rounds_to_two_decimals() -> None:
    asked = [
        question(1, "yes", "yes/no"),
        question(2, "4", "number", count=1),
        question(3, "dog", count=2),
    ]
    scores = evaluate(asked, {1: "yes", 2: "4", 3: "dog"})
    assert scores.overall == 63.33
    assert scores.by_answer_type == {"yes/no": 100.0, "number": 30.0, "other": 60.0}
    assert scores.by_question_type == {"q1": 80.0, "q0": 30.0}
    assert scores.per_question[2] == pytest.approx(0.3)
    simple = evaluate(asked, {1: "yes", 2: "4", 3: "a big dog"}, Matching.simple)
    assert simple.by_answer_type == {"yes/no": 100.0, "number": 100.0, "other": 50.0}


def test_predictions_must_cover_exactly_the_questions() -> None:
    with pytest.raises(ValueError, match=r"1 without an answer \(first \[2\]\), 1 .*first \[7\]"):
        evaluate([question(1, "a"), question(2, "b")], {1: "a", 7: "b"})
    with pytest.raises(ValueError, match="2 questions with 1 different ids"):
        evaluate([question(1, "a"), question(1, "b")], {1: "a"})


# -- every OK-VQA question against the published program, spelt out step by step ---------------

MARKS = [
    *(";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+"),
    *("\\", "_", "-", ">", "<", "@", "`", ",", "?", "!"),
]


@functools.cache
def transcribed_clean(text: str) -> str:
    out = text
    for mark in MARKS:
        touches = (mark + " " in text) or (" " + mark in text)
        out = out.replace(mark, "" if touches or re.search(r"(\d)(\,)(\d)", text) else " ")
    out = re.compile(r"(?!<=\d)(\.)(?!\d)").sub("", out, int(re.UNICODE))
    words = [NUMBERS.get(word, word) for word in out.lower().split()]
    words = [word for word in words if word not in ("a", "an", "the")]
    return " ".join(CONTRACTIONS.get(word, word) for word in words)


def transcribed_accuracy(prediction: str, answers: list[dict[str, object]]) -> float:
    def flat(text: str) -> str:
        return text.replace("\n", " ").replace("\t", " ").strip()

    given = [{**entry, "answer": flat(str(entry["answer"]))} for entry in answers]
    prediction = flat(prediction)
    if len({entry["answer"] for entry in given}) > 1:
        given = [{**entry, "answer": transcribed_clean(str(entry["answer"]))} for entry in given]
        prediction = transcribed_clean(prediction)
    credits = []
    for one in given:
        others = [entry for entry in given if entry != one]
        same = [entry for entry in others if entry["answer"] == prediction]
        credits.append(min(1, float(len(same)) / 3))
    return float(sum(credits)) / len(credits)


def test_okvqa_scores_equal_the_published_rule_on_every_question() -> None:
    asked = okvqa_questions()
    for before, item in zip([asked[-1], *asked], asked, strict=False):
        entries = [{"answer": text, "answer_id": i} for i, text in enumerate(item.answers)]
        guesses = {*item.answers, f"The {item.answers[0]}.", before.answers[0], item.text, ""}
        for guess in guesses:
            assert vqa_accuracy(guess, item.answers) == transcribed_accuracy(guess, entries), guess


def test_okvqa_has_three_levels() -> None:
    levels = {
        round(vqa_accuracy(answer, item.answers), 9)
        for item in okvqa_questions()
        for answer in {*item.answers, "xyzzy"}
    }
    assert levels == {0.0, 0.6, 1.0}


def test_the_official_rule_refuses_fewer_than_four_annotators() -> None:
    alone = Question(7, 7, "what?", ("dog",), "other", "q")
    with pytest.raises(ValueError, match=r"question 7: answers=\['dog'\]: expected .* 4 annot"):
        evaluate([alone], {7: "dog"})
    assert evaluate([alone], {7: "dog"}, Matching.simple).overall == 100.0
    four = Question(7, 7, "what?", ("dog",) * 4, "other", "q")
    assert evaluate([four], {7: "dog"}).overall == 100.0
