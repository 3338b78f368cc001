"""The answer of a completion and its score.

There is one function for each problem type, as in HumanOmniV2's rewards and in IntentBench, with
these deviations: the type is that of the record (theirs is that of the batch's first), spaces
around labels do not count (`B, C` is `B,C`), an option may be given as `A.`, `(A)` or in full, and
a completion without an answer is wrong.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from omni_rl.data.record import NAMED, Record, same_option
from omni_rl.rewards.lexicon import units

TAGS = ("context", "think", "answer")
INSTRUCTION = "instruction"
_TAG = re.compile(rf"</?(?:{'|'.join(TAGS)})>")
_LABEL_END = re.compile("[,;\uff0c\u3001\uff1b]")
_YES = {"yes", "yeah", "yep", "yup", "true", "\u662f"}
_NO = {"no", "nope", "nah", "false", "\u5426", "\u4e0d"}
# A written word: up to the next space, Chinese by character.
_WRITTEN = re.compile(r"[\u3400-\u9fff]|[^\s\u3400-\u9fff]+")
# Bounds of mean relative accuracy: 1 - c for c = .5 to .95 in steps of .05, as in IntentBench.
_ERROR_BOUNDS = np.float32(1) - np.array([k / 100 for k in range(50, 100, 5)], dtype=np.float32)

Scorer = Callable[[str, str, Record], float | None]


def tag_body(text: str, tag: str) -> str | None:
    """Return the stripped text inside the first `<tag>...</tag>`; None without one."""
    found = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return found.group(1).strip() if found else None


def tag_parts(text: str) -> list[str]:
    """Cut a text at every tag."""
    return _TAG.split(text)


def without_tags(text: str) -> str:
    """Replace every tag by a line break, so that sentences stay apart."""
    return "\n".join(tag_parts(text))


def judged_text(text: str) -> str:
    """Return the description in a completion: the text inside `<context>`.

    Text after `</answer>` is ignored.  A context that is not closed ends at the next tag; without a
    context the description is the whole text without tags.
    """
    text = text.split("</answer>")[0]
    body = tag_body(text, "context")
    if body is None and "<context>" in text:
        body = tag_parts(text.split("<context>", 1)[1])[0].strip()
    return without_tags(text).strip() if body is None else without_tags(body)


def truth_of(record: Record) -> str:
    """Return the right answer of a record, without tags; empty where it has none."""
    bare = tag_body(record.answer, "answer") or record.answer.strip()
    return bare or tag_body(record.solution, "answer") or ""


def given_answer(record: Record, text: str) -> str | None:
    """Return the answer of a completion; None without an `<answer>`.

    An instruction may also be followed by the bare text it asks for.
    """
    body = tag_body(text, "answer")
    return text.strip() if body is None and record.problem_type == INSTRUCTION else body


def letter(text: str, options: Sequence[str]) -> str:
    """Return the letter of an option given as `A`, `A.`, `(A)` or in full; else the text."""
    text = text.strip()
    bare = re.fullmatch(r"\(?([A-Z])[).:]*", text)
    if bare:
        return bare.group(1)
    for option in options:
        named = NAMED.match(option.strip())
        if named and text == option.strip():
            return named.group(1)
    return text


def set_f1(given: Sequence[str], truth: Sequence[str]) -> float:
    """F1 of two label sets, in [0, 1]; 0 when either is empty."""
    ours, theirs = set(given) - {""}, set(truth) - {""}
    shared = len(ours & theirs)
    return 2 * shared / (len(ours) + len(theirs)) if shared else 0.0


def token_f1(given: str, truth: str) -> float:
    """F1 of two bags of words (SQuAD, Rajpurkar et al. 2016), Chinese by character."""
    ours, theirs = Counter(units(given)), Counter(units(truth))
    shared = sum((ours & theirs).values())
    return 2 * shared / (ours.total() + theirs.total()) if shared else 0.0


def word_error_rate(given: str, truth: str) -> float:
    """Edits over words of the truth (Chinese: characters), 0 when equal, may exceed 1.

    Words are cut at spaces, so case and marks count: `C` is not `C++`, `3-4=7` is not `3+4=7`.
    """
    ours, theirs = _WRITTEN.findall(given), _WRITTEN.findall(truth)
    if not theirs:
        return float(len(ours) > 0)
    row = list(range(len(ours) + 1))
    for i, wanted in enumerate(theirs, 1):
        diagonal, row[0] = row[0], i
        for j, word in enumerate(ours, 1):
            edits = min(row[j] + 1, row[j - 1] + 1, diagonal + (word != wanted))
            diagonal, row[j] = row[j], edits
    return row[-1] / len(theirs)


def number(text: str) -> float | None:
    """Read a finite number, also with thousands separators or a percent sign; else None."""
    plain = text.strip().rstrip("%").replace(",", "")
    try:
        value = float(plain)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _labels(text: str) -> list[str]:
    return [label.strip() for label in _LABEL_END.split(text)]


def _choice(given: str, truth: str, record: Record) -> float:
    ours, theirs = letter(given, record.options), letter(truth, record.options)
    return float(ours == theirs or same_option((ours, theirs), record.options))


def _choices(given: str, truth: str, record: Record) -> float:
    ours = [letter(label, record.options) for label in _labels(given)]
    return set_f1(ours, [letter(label, record.options) for label in _labels(truth)])


def _open_labels(given: str, truth: str, record: Record) -> float:
    wanted = record.labels or _labels(truth)
    fold = str.casefold
    return set_f1([fold(label) for label in _labels(given)], [fold(w.strip()) for w in wanted])


def _numerical(given: str, truth: str, record: Record) -> float:
    ours, theirs = number(given), number(truth)
    if theirs is None:
        return float(given.strip() == truth.strip())
    # The published rule: both or neither written with a point or comma, equal at two decimals.
    same_style = any(c in given for c in ".,") == any(c in truth for c in ".,")
    return float(ours is not None and same_style and round(ours, 2) == round(theirs, 2))


def _relative_error(given: str, truth: str) -> float:
    ours, theirs = number(given), number(truth)
    if ours is None or theirs is None:
        return math.inf
    if theirs == 0:
        return 0.0 if ours == 0 else math.inf
    return abs(ours - theirs) / abs(theirs)


def _regression(given: str, truth: str, record: Record) -> float:
    return 1.0 - min(1.0, _relative_error(given, truth))


def mean_relative_accuracy(given: str, truth: str, record: Record) -> float:
    """Share of confidences c in .5, .55, ... .95 with a relative error below 1 - c.

    In the benchmark's own float32 arithmetic: it decides whether an error of .05 is below 1 - .95.
    """
    ours, theirs = number(given), number(truth)
    if ours is None or theirs is None:
        return 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # numbers beyond float32 are wrong answers
        right = np.float32(theirs)
        error = np.abs(np.float32(ours) - right) / (np.abs(right) + np.float32(1e-8))
    return float((error < _ERROR_BOUNDS).mean())


def _ocr(given: str, truth: str, record: Record) -> float:
    return max(0.0, 1.0 - word_error_rate(given, truth))


def _free_form(given: str, truth: str, record: Record) -> float:
    return token_f1(given, truth)


def _verdict(text: str) -> bool | None:
    said = set(units(text))
    yes, no = bool(said & _YES), bool(said & _NO)
    # In Chinese the negation stands before "yes", so that both together are a no.
    if "\u4e0d" in said:
        return False
    return yes if yes != no else None


def _yes_no(given: str, truth: str, record: Record) -> float | None:
    wanted = _verdict(truth)
    return None if wanted is None else float(_verdict(given) == wanted)


def _exact(given: str, truth: str, record: Record) -> float:
    return float(given.strip() == truth.strip())


REWARD_SCORERS: Mapping[str, Scorer] = {
    "multiple choice": _choice,
    "numerical": _numerical,
    "OCR": _ocr,
    "free-form": _free_form,
    "regression": _regression,
    "emer_ov": _open_labels,
    "emer_ov_mc": _choices,
    "judge": _yes_no,
    INSTRUCTION: _exact,
}
# The benchmark scores a regression by thresholds, the reward by the relative error.
BENCHMARK_SCORERS: Mapping[str, Scorer] = {
    **REWARD_SCORERS,
    "regression": mean_relative_accuracy,
}


def score_answer(
    record: Record, text: str, scorers: Mapping[str, Scorer] = REWARD_SCORERS
) -> float | None:
    """Score a completion's answer by the record's own problem type.

    Args:
        record: the question with its truth.
        text: the completion.
        scorers: one function a problem type, of the answer given, the truth and the record.

    Returns:
        A value in [0, 1]; 0 without an answer; None if the record has no right answer.

    Raises:
        ValueError: the problem type is unknown.
    """
    if record.problem_type not in scorers:
        raise ValueError(
            f"{record.where}: problem_type={record.problem_type!r}: expected one of "
            f"{sorted(scorers)}"
        )
    truth = truth_of(record)
    if not truth and not record.labels:
        return None
    given = given_answer(record, text)
    return 0.0 if given is None else scorers[record.problem_type](given, truth, record)
