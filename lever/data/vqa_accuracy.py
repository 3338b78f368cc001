"""VQA accuracy by the official program's rules, and a simple match for other data.

For each annotator, count the OTHER annotators who gave the predicted answer; the accuracy is the
mean over annotators of min(count / 3, 1) (Antol et al. 2015, arXiv 1505.00468, section 4).  With
ten annotators, n of whom gave the answer, it is 0, .3, .6, .9 and 1 for n = 0, 1, 2, 3 and more.

For scores that are comparable with published ones, details of the published program are kept:

* both sides are normalised only if the annotators differ; if all gave the same text, "The dog."
  does not match "dog" and "two" does not match "2";
* a punctuation mark is deleted if it stands beside a space anywhere in the original text, or if the
  text has a number like 12,000; otherwise it becomes a space;
* the pattern for periods spares a period before a digit only: "3." loses its period, ".5" and "3.5"
  keep theirs.  At most 32 periods are removed;
* contractions get one missing apostrophe back; `somebody'd` loses its own;
* percentages are rounded to two decimals, each mean computed from unrounded numbers.

One detail is not kept: the published program tells annotators apart by comparing whole entries, so
that equal entries without `answer_id` are all left out.  Here each annotator counts by position.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from lever.data.vqa_files import Question
from lever.generation_config import Matching

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_TO_TEN = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate(_TO_TEN)}
LEAST_ANNOTATORS = 4  # one, and the three others needed for a full score
ARTICLES = frozenset({"a", "an", "the"})

# Words that are recognised with one of their apostrophes missing.  The official list also has
# words that begin with "I", but the text is in lower case when it is looked up.
_APOSTROPHISED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's
won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""

_NUMBER_WITH_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_PERIODS_REMOVED = 32


def _without_one_apostrophe(word: str) -> list[str]:
    return [word[:i] + word[i + 1 :] for i, mark in enumerate(word) if mark == "'"]


CONTRACTIONS = {
    **{key: word for word in _APOSTROPHISED.split() for key in _without_one_apostrophe(word)},
    "somebody'd": "somebodyd",
}


@dataclass(frozen=True)
class Scores:
    """Scores of a set of questions.

    Attributes:
        per_question: question id -> accuracy in [0, 1], not rounded.
        overall: mean, in percent, rounded to two decimals.
        by_answer_type: answer type -> the same over its questions.
        by_question_type: question type -> the same over its questions.
    """

    per_question: Mapping[int, float]
    overall: float
    by_answer_type: Mapping[str, float]
    by_question_type: Mapping[str, float]


def check_answers(where: str, answers: Sequence[str], rule: Matching) -> None:
    """Raise ValueError if the official rule could not give 1 even to a unanimous answer.

    The simple match takes any number of answers.  `where` is the question, for the message.
    """
    if rule is Matching.official and len(answers) < LEAST_ANNOTATORS:
        raise ValueError(
            f"{where}: answers={list(answers)}: expected those of {LEAST_ANNOTATORS} annotators or "
            "more, for the official rule compares each with the others; write a single answer ten "
            "times into the file that data_mix.files.annotations names, or judge by "
            "rl_data.matching=simple (choose.simple_match=true where a selector is scored)"
        )


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Return the official accuracy of a prediction, in [0, 1]; ValueError without answers."""
    if not answers:
        raise ValueError("answers: expected at least one annotator's answer, got none")
    prediction = _flatten(prediction)
    given = [_flatten(answer) for answer in answers]
    if len(set(given)) > 1:
        prediction = normalise(prediction)
        given = [normalise(answer) for answer in given]
    matches = [answer == prediction for answer in given]
    # In this order of operations: n / 3 differs from the closed form in the last bit.
    credits = [min(1.0, (sum(matches) - own) / 3) for own in matches]
    return sum(credits) / len(credits)


def simple_match(prediction: str, answers: Sequence[str]) -> float:
    """Return 1 for an exact match, .5 for a partial match, 0 otherwise.

    For data with too few answers for the official rule.  Both sides are normalised.  In a partial
    match the words of one are consecutive words of the other: "brown dog" matches "dog", "category"
    does not match "cat".  A run uses either this rule or the official one, never both.
    """
    if not answers:
        raise ValueError("answers: expected at least one reference answer, got none")
    words = normalise(_flatten(prediction)).split()
    given = [normalise(_flatten(answer)).split() for answer in answers]
    if words in given:
        return 1.0
    in_part = any(_holds(words, answer) or _holds(answer, words) for answer in given)
    return 0.5 if in_part else 0.0


MATCHERS: Mapping[Matching, Callable[[str, Sequence[str]], float]] = {
    Matching.official: vqa_accuracy,
    Matching.simple: simple_match,
}


def evaluate(
    questions: Sequence[Question],
    predictions: Mapping[int, str],
    rule: Matching = Matching.official,
) -> Scores:
    """Score predictions, in total and by answer type and question type.

    Predictions, question id -> answer, must cover exactly the questions, as in the official
    program.

    Raises:
        ValueError: there are no questions, two share an id, or the predictions have other ids.
    """
    by_id = {question.question_id: question for question in questions}
    if not questions or len(by_id) < len(questions):
        raise ValueError(
            f"{len(questions)} questions with {len(by_id)} different ids: expected at least one "
            "question and an id of its own for each"
        )
    missing, unknown = sorted(by_id.keys() - predictions), sorted(predictions.keys() - by_id)
    if missing or unknown:
        raise ValueError(
            f"predictions must cover exactly the {len(by_id)} questions asked: "
            f"{len(missing)} without an answer (first {missing[:3]}), "
            f"{len(unknown)} of questions not asked (first {unknown[:3]})"
        )
    for key, item in by_id.items():
        check_answers(f"question {key}", item.answers, rule)
    match = MATCHERS[rule]
    accuracy = {key: match(predictions[key], item.answers) for key, item in by_id.items()}
    by_answer: dict[str, list[float]] = defaultdict(list)
    by_question: dict[str, list[float]] = defaultdict(list)
    for key, item in by_id.items():
        by_answer[item.answer_type].append(accuracy[key])
        by_question[item.question_type].append(accuracy[key])
    grouped = (
        {name: _percent(values) for name, values in found.items()}
        for found in (by_answer, by_question)
    )
    return Scores(accuracy, _percent(list(accuracy.values())), *grouped)


@lru_cache(maxsize=1 << 16)  # a question's answers are normalised again for each slate
def normalise(text: str) -> str:
    """Normalise an answer: punctuation first, then numbers, articles and contractions."""
    return _normalise_words(_normalise_punctuation(text))


def _flatten(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _normalise_punctuation(text: str) -> str:
    result = text
    number = _NUMBER_WITH_COMMA.search(text) is not None
    for mark in PUNCTUATION:
        drop = number or f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if drop else " ")
    return _PERIOD.sub("", result, count=_PERIODS_REMOVED)


def _normalise_words(text: str) -> str:
    words = (NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def _holds(words: Sequence[str], part: Sequence[str]) -> bool:
    """Whether `part`, if not empty, is a run of consecutive words of `words`."""
    size = len(part)
    return size > 0 and any(words[i : i + size] == part for i in range(len(words) - size + 1))


def _percent(values: Sequence[float]) -> float:
    return round(100 * sum(values) / len(values), 2)
