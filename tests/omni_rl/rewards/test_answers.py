"""Answers of every problem type, against hand-computed scores."""

from __future__ import annotations

import pytest
import torch

from omni_rl.data.record import Record
from omni_rl.rewards.answers import (
    BENCHMARK_SCORERS,
    judged_text,
    score_answer,
    tag_body,
    truth_of,
    word_error_rate,
)

OPTIONS = ("A. happy", "B. sad", "C. surprised", "D. calm")


def question(problem_type: str, answer: str, **fields: object) -> Record:
    values: dict[str, object] = {
        "id": "q1",
        "source": "test",
        "problem": "?",
        "problem_type": problem_type,
        "options": OPTIONS,
        "answer": answer,
        "solution": "",
        "data_type": "video",
        "videos": (),
        "images": (),
        "audios": (),
        "origin": "test.jsonl:3",
    }
    return Record(**(values | fields))  # type: ignore[arg-type]


# problem type, truth, given, reward
ANSWERS = [
    ("multiple choice", "B", "B", 1.0),
    ("multiple choice", "B", " (B) ", 1.0),
    ("multiple choice", "B", "B.", 1.0),
    ("multiple choice", "B", "B. sad", 1.0),
    ("multiple choice", "B. sad", "B", 1.0),
    ("multiple choice", "B", "B. happy", 0.0),  # the letter of one option, the text of another
    ("multiple choice", "B", "A or B", 0.0),
    ("multiple choice", "B", "b", 0.0),
    ("multiple choice", "B", "", 0.0),
    ("numerical", "3", "3", 1.0),
    ("numerical", "3", "3.0", 0.0),  # the published rule: both or neither with a decimal point
    ("numerical", "3.14", "3.141", 1.0),  # equal at two decimals
    ("numerical", "3.14", "3.15", 0.0),
    ("numerical", "1,000", "1,000", 1.0),
    ("numerical", "3", "three", 0.0),
    ("numerical", "3", "nan", 0.0),
    ("OCR", "stop here now please", "stop here now please", 1.0),
    ("OCR", "stop here now please", "stop there now please", 0.75),  # one edit in four
    ("OCR", "STOP here", "stop here", 0.5),  # case and marks are part of what is written
    ("OCR", "x^{2}-1", "x 2 1", 0.0),
    ("OCR", "3+4=7", "3-4=7", 0.0),
    ("OCR", "C++", "C", 0.0),
    ("OCR", "x^{2}-1", " x^{2}-1 ", 1.0),
    ("OCR", "\u51fa\u53e3", "\u5165\u53e3", 0.5),  # Chinese by character
    ("OCR", "stop", "go on and on", 0.0),  # more edits than words
    ("free-form", "the man waves", "a man waves", 2 * 2 / 6),
    ("free-form", "the man waves", "nothing", 0.0),
    ("regression", "10", "8", 0.8),
    ("regression", "10", "-20", 0.0),
    ("regression", "10", "inf", 0.0),
    ("regression", "0", "0", 1.0),
    ("regression", "0", "1", 0.0),
    ("emer_ov_mc", "B,C", "B, C", 1.0),  # theirs compared " C" with "C"
    ("emer_ov_mc", "B,C", "B", 2 / 3),
    ("emer_ov_mc", "B,C", "A,B,C,D", 2 / 3),  # naming everything does not pay
    ("emer_ov_mc", "B,C", "B,B,C,C", 1.0),  # sets
    ("emer_ov_mc", "B,C", "A,D", 0.0),
    ("emer_ov_mc", "B,C", ",,", 0.0),
    ("emer_ov", "joy, pride", "Pride, fear", 0.5),
    ("judge", "Yes", "yes.", 1.0),
    ("judge", "Yes", "No", 0.0),
    ("judge", "No", "yes and no", 0.0),
    ("judge", "No", "Nope", 1.0),
    ("judge", "Yes", "Nope.", 0.0),
    ("judge", "Yes", "Yeah", 1.0),
    ("judge", "Yes", "", 0.0),
    ("instruction", "ready", "ready", 1.0),
    ("instruction", "ready", "ready.", 0.0),
]


@pytest.mark.parametrize(("problem_type", "truth", "given", "reward"), ANSWERS)
def test_each_problem_type(problem_type: str, truth: str, given: str, reward: float) -> None:
    text = f"<context>c</context><think>t</think><answer>{given}</answer>"
    assert score_answer(question(problem_type, truth), text) == pytest.approx(reward)


def test_the_right_text_under_two_letters_is_right_under_both() -> None:
    twice = question("multiple choice", "B", options=("A. sad", "B. happy", "C. calm", "D. happy"))
    given = {letter: score_answer(twice, f"<answer>{letter}</answer>") for letter in "ABCDE"}
    assert given == {"A": 0.0, "B": 1.0, "C": 0.0, "D": 1.0, "E": 0.0}


@pytest.mark.parametrize(
    ("given", "score"),
    [
        ("10", 1.0),
        ("9.5", 1.0),  # in float32 an error of .05 is below 1 - .95
        ("8", 0.6),  # an error of .2 is below 1 - c for c = .5 .. .75
        ("5", 0.0),
        ("text", 0.0),
    ],
)
def test_mean_relative_accuracy(given: str, score: float) -> None:
    text = f"<answer>{given}</answer>"
    found = score_answer(question("regression", "10"), text, BENCHMARK_SCORERS)
    assert found == pytest.approx(score)


@pytest.mark.parametrize(
    ("truth", "given", "score"),
    [
        # Errors of exactly .05, .1, .15, .35: where IntentBench's script rounds them to.
        ("20", "19", 1.0),
        ("20", "21", 1.0),
        ("10", "9", 0.9),
        ("20", "17", 0.7),
        ("20", "13", 0.4),
        ("40", "46", 0.7),
        ("0", "0", 1.0),
        ("0", "0.5", 0.0),
        ("1e40", "1", 0.0),
    ],
)
def test_mean_relative_accuracy_at_the_thresholds(truth: str, given: str, score: float) -> None:
    text = f"<answer>{given}</answer>"
    found = score_answer(question("regression", truth), text, BENCHMARK_SCORERS)
    assert found == pytest.approx(score)


def as_intentbench_counts(given: float, truth: float) -> float:
    """Mean relative accuracy as the benchmark defines it, in float32 tensors."""
    ours, theirs = torch.tensor(given), torch.tensor(truth)
    error = (ours - theirs).abs() / (theirs.abs() + 1e-8)
    return (error < 1 - torch.arange(0.5, 0.975, 0.05)).float().mean().item()


def test_mean_relative_accuracy_is_the_benchmarks_on_a_grid() -> None:
    pairs = [(given, truth) for truth in range(1, 41) for given in range(1, 43)]
    found = [
        score_answer(
            question("regression", str(truth)), f"<answer>{given}</answer>", BENCHMARK_SCORERS
        )
        for given, truth in pairs
    ]
    assert found == pytest.approx([as_intentbench_counts(float(g), float(t)) for g, t in pairs])


def test_an_answer_outside_the_tag_is_wrong() -> None:
    assert score_answer(question("multiple choice", "B"), "the answer is B") == 0.0
    assert score_answer(question("multiple choice", "B"), "<answer>B") == 0.0


def test_only_the_first_answer_counts() -> None:
    text = "<answer>A</answer><answer>B</answer>"
    assert score_answer(question("multiple choice", "B"), text) == 0.0


def test_an_instruction_may_be_followed_with_or_without_tags() -> None:
    record = question("instruction", "ready")
    assert score_answer(record, " ready\n") == 1.0
    assert score_answer(record, "I am ready") == 0.0


def test_a_record_without_a_truth_cannot_be_judged() -> None:
    assert score_answer(question("multiple choice", ""), "<answer>A</answer>") is None


def test_the_truth_may_stand_in_tags_or_in_the_solution() -> None:
    assert truth_of(question("numerical", "<answer> 7 </answer>")) == "7"
    assert truth_of(question("numerical", "", solution="<think>x</think><answer>7</answer>")) == "7"


def test_labels_are_the_truth_of_open_emotion_questions() -> None:
    record = question("emer_ov", "", labels=("Happy", "proud"))
    assert score_answer(record, "<answer>happy</answer>") == pytest.approx(2 / 3)


def test_an_unknown_problem_type_names_record_and_cure() -> None:
    with pytest.raises(ValueError, match=r"test\.jsonl:3.*problem_type='essay'.*multiple choice"):
        score_answer(question("essay", "x"), "<answer>x</answer>")


def test_word_error_rate_counts_chinese_by_character() -> None:
    # two insertions and one substitution in a truth of three words
    assert word_error_rate("a x c d e", "a b c") == pytest.approx(1.0)
    assert word_error_rate("\u4ed6\u7b11", "\u4ed6\u54ed") == pytest.approx(0.5)
    assert word_error_rate("", "a") == 1.0
    assert word_error_rate("", "") == 0.0


@pytest.mark.parametrize(
    ("text", "judged"),
    [
        ("<context> he waves </context><think>she smiles</think>", "he waves"),
        ("<context>he waves</context><answer>A</answer> she smiles", "he waves"),
        ("he waves <answer>A</answer> she smiles", "he waves \nA"),
        ("<answer>A</answer><context>he waves</context>", "A"),  # after the answer
        ("<context>he waves<think>she smiles</think>", "he waves"),  # not closed
        ("<think>he waves</think>", "he waves"),  # no context: the text without tags
        ("", ""),
    ],
)
def test_judged_text(text: str, judged: str) -> None:
    assert judged_text(text) == judged


def test_tag_body_is_none_without_both_tags() -> None:
    assert tag_body("<think>x", "think") is None
    assert tag_body("<think>\n x \n</think>", "think") == "x"
