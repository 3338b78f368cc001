"""VQA accuracy: the official rule to the last quirk, and a simple match for other data.

A prediction is right as far as annotators agree with it.  For each annotator in turn, count the
OTHER annotators who gave the predicted answer; the accuracy is the mean over annotators of
min(count / 3, 1) (Antol et al. 2015, arXiv 1505.00468, section 4).  With ten annotators, n of whom
gave the answer, that is 0, .3, .6, .9 and 1 for n = 0, 1, 2, 3 and more.

Scores are comparable with published ones only if the published program's habits are kept, so they
are:

* both sides are normalised only where the annotators differ; where all gave one and the same text,
  "The dog." does not match "dog" and "two" does not match "2";
* punctuation is removed where one such mark touches a space somewhere in the text, or where the
  text holds a number like 12,000; elsewhere it becomes a space.  Both are asked of the original
  text, mark by mark;
* the pattern for periods was meant to spare decimals and looks only ahead: "3." loses its period,
  ".5" and "3.5" keep theirs.  It removes at most 32 of them;
* contractions get back one apostrophe; `somebody'd` loses its own;
* percentages are rounded to two decimals, each mean from unrounded numbers.

One habit is not kept: the published program tells annotators apart by comparing whole entries, so
entries without `answer_id` that agree all vanish.  Here annotators are told apart by their place.
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
NUMBERS = {
    "none": "0",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}
LEAST_ANNOTATORS = 4  # one and the three others that a full score asks for
ARTICLES = frozenset({"a", "an", "the"})

# Words that are found with one of their apostrophes missing.  Those that begin with "I" are left
# out: they are looked up in lower case and never found.
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


def check_annotators(where: str, answers: Sequence[str]) -> None:
    """Raise ValueError where the official rule would not give 1 to what all annotators said.

    Args:
        where: the question, for the message.
        answers: of its annotators.
    """
    if len(answers) < LEAST_ANNOTATORS:
        raise ValueError(
            f"{where}: answers={list(answers)}: expected those of {LEAST_ANNOTATORS} annotators or "
            "more, for the official rule compares each with the others; write a single answer ten "
            "times into the file that data_mix.files.annotations names, or judge by "
            "rl_data.matching=simple (choose.simple_match=true where a selector is scored)"
        )


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Return the official accuracy, in [0, 1], of a prediction against the annotators' answers.

    Raises:
        ValueError: there are no answers.
    """
    if not answers:
        raise ValueError("answers: expected at least one annotator's answer, got none")
    prediction = _flatten(prediction)
    given = [_flatten(answer) for answer in answers]
    if len(set(given)) > 1:
        prediction = normalise(prediction)
        given = [normalise(answer) for answer in given]
    matches = [answer == prediction for answer in given]
    # As written and in this order: n / 3 differs from the closed form in the last bit.
    credits = [min(1.0, (sum(matches) - own) / 3) for own in matches]
    return sum(credits) / len(credits)


def simple_match(prediction: str, answers: Sequence[str]) -> float:
    """Return 1 for an answer met exactly, .5 for one met in part, 0 otherwise.

    For data with a single answer or a few, to which the official rule gives no meaning.  Both sides
    are normalised.  In part: the words of one are a run inside the words of the other, so "brown
    dog" and "dog" meet but "cat" and "category" do not.  Never mixed with the official rule: a run
    uses one or the other.

    Raises:
        ValueError: there are no answers.
    """
    if not answers:
        raise ValueError("answers: expected at least one reference answer, got none")
    words = normalise(_flatten(prediction)).split()
    given = [normalise(_flatten(answer)).split() for answer in answers]
    if words in given:
        return 1.0
    in_part = any(_holds(words, answer) or _holds(answer, words) for answer in given)
    return 0.5 if in_part else 0.0


def check_answers(where: str, answers: Sequence[str], mode: Matching) -> None:
    """Raise ValueError where a rule gives no meaning to so few answers; see `check_annotators`."""
    if mode is Matching.official:
        check_annotators(where, answers)


MATCHERS: Mapping[Matching, Callable[[str, Sequence[str]], float]] = {
    Matching.official: vqa_accuracy,
    Matching.simple: simple_match,
}


def evaluate(
    questions: Sequence[Question],
    predictions: Mapping[int, str],
    mode: Matching = Matching.official,
) -> Scores:
    """Score predictions and table them by answer type and question type.

    Args:
        questions: with their answers.
        predictions: question id -> answer; must cover exactly the questions, as the official
            program demands of a results file.
        mode: the official rule or the simple match.

    Raises:
        ValueError: there are no questions, two share an id, or the predictions are of others.
    """
    by_id = {question.question_id: question for question in questions}
    if not questions or len(by_id) < len(questions):
        raise ValueError(
            f"{len(questions)} questions with {len(by_id)} different ids: expected at least one "
            "question and an id of its own for each"
        )
    check_coverage(by_id, predictions)
    for key, item in by_id.items():
        check_answers(f"question {key}", item.answers, mode)
    match = MATCHERS[mode]
    accuracy = {key: match(predictions[key], item.answers) for key, item in by_id.items()}
    by_answer: dict[str, list[float]] = defaultdict(list)
    by_question: dict[str, list[float]] = defaultdict(list)
    for key, item in by_id.items():
        by_answer[item.answer_type].append(accuracy[key])
        by_question[item.question_type].append(accuracy[key])
    return Scores(
        accuracy,
        _percent(list(accuracy.values())),
        {name: _percent(values) for name, values in by_answer.items()},
        {name: _percent(values) for name, values in by_question.items()},
    )


def check_coverage(expected: Mapping[int, object], predictions: Mapping[int, str]) -> None:
    """Raise ValueError unless there is a prediction for each question and for no other."""
    missing = sorted(set(expected) - set(predictions))
    unknown = sorted(set(predictions) - set(expected))
    if missing or unknown:
        raise ValueError(
            f"predictions must cover exactly the {len(expected)} questions asked: "
            f"{len(missing)} without an answer (first {missing[:3]}), "
            f"{len(unknown)} of questions not asked (first {unknown[:3]})"
        )


@lru_cache(maxsize=1 << 16)  # a question's answers come again with each of its slates
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
    """Tell whether `part` (not empty) is a run inside `words`."""
    size = len(part)
    return size > 0 and any(words[i : i + size] == part for i in range(len(words) - size + 1))


def _percent(values: Sequence[float]) -> float:
    return round(100 * sum(values) / len(values), 2)
