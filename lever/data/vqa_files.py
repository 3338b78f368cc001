"""The official VQA files: questions with annotations are read strictly, results are written."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from core_rl.files import write_json
from lever.data.strict_json import Row, load_json

log = logging.getLogger(__name__)

WHAT = "an official VQA JSON file"
Stems = Mapping[str, str]  # a word or a whole answer in lower case -> its stem


@dataclass(frozen=True)
class Question:
    """A visual question with its annotators' answers.

    Attributes:
        question_id: unique in its data set.
        image_id: of the picture.
        text: the question.
        answers: one an annotator, as written; ten in VQAv2 and OK-VQA.
        answer_type: yes/no, number or other; `other` where the file has none.
        question_type: the data set's own grouping; may be empty.
    """

    question_id: int
    image_id: int
    text: str
    answers: tuple[str, ...]
    answer_type: str = "other"
    question_type: str = ""


def read_questions(questions: str | Path, annotations: str | Path) -> list[Question]:
    """Read an official pair of files, in the order of the questions.

    OK-VQA's annotations hold a stemmed `answer` and a `raw_answer`.  The stemmed one is read, and a
    warning says so: the published scores use it ("racing" does not match the truth "race").

    Raises:
        FileNotFoundError: one of the files is missing.
        ValueError: not JSON, a field is missing or of another type, an id occurs twice, or the two
            files have different questions.
    """
    asked = _by_id(Path(questions), "questions")
    answered = _by_id(Path(annotations), "annotations")
    for path, ids, other in (
        (annotations, asked.keys() - answered.keys(), questions),
        (questions, answered.keys() - asked.keys(), annotations),
    ):
        if ids:
            raise ValueError(
                f"{path}: {len(ids)} question ids of {other} are not in it (first "
                f"{sorted(ids)[:3]}): name the two files of one split"
            )
    stems = _stems(answered.values())
    if stems:
        raw, stem = next(iter(stems.items()))
        log.warning(
            "%s: the truths are stemmed (%r stands for %r), as the published scores have them; "
            "choose.stem_predictions=true stems predictions alike",
            *(annotations, stem, raw),
        )
    return [_question(key, asked[key], answered[key]) for key in asked]


def read_stems(annotations: str | Path) -> Stems:
    """Learn the stemming of OK-VQA's truths from the file: `raw_answer` -> `answer`, and by word.

    Of several stems of one word the most frequent counts.  Empty where nothing is stemmed.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it breaks its layout.
    """
    return _stems(_by_id(Path(annotations), "annotations").values())


def stemmed(answer: str, stems: Stems) -> str:
    """Stem an answer: as a whole where the truths have it, else word by word."""
    words = answer.lower().split()
    whole = " ".join(words)
    return stems.get(whole) or " ".join(stems.get(word, word) for word in words)


def write_results(path: str | Path, predictions: Mapping[int, str]) -> None:
    """Write predictions in the format of the evaluation servers: a list of ids and answers."""
    rows = [{"question_id": key, "answer": answer} for key, answer in predictions.items()]
    write_json(Path(path), rows)


def read_results(path: str | Path) -> dict[int, str]:
    """Read a results file.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: not a list of `{question_id, answer}`, or an id occurs twice.
    """
    path = Path(path)
    rows = _rows_by_id(path, load_json(path, WHAT))
    return {key: row.text("answer") for key, row in rows.items()}


def _stems(answered: Iterable[Row]) -> Stems:
    """Collect whole answers and words that differ from their stems."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for row in answered:
        for one in row.rows("answers"):
            raw, stem = one.text("raw_answer", default="").lower().split(), one.text("answer")
            if raw and len(raw) == len(stem.split()):
                for word, short in zip(raw, stem.lower().split(), strict=True):
                    seen[word][short] += 1
            if len(raw) > 1:
                seen[" ".join(raw)][stem.lower()] += 1
    common = {word: stems.most_common(1)[0][0] for word, stems in seen.items()}
    return {word: stem for word, stem in common.items() if stem != word}


def _by_id(path: Path, name: str) -> dict[int, Row]:
    whole = load_json(path, WHAT)
    if not isinstance(whole, dict) or name not in whole:
        raise ValueError(f"{path}: expected an object with a list {name!r}")
    return _rows_by_id(path, whole[name])


def _rows_by_id(path: Path, entries: object) -> dict[int, Row]:
    if not isinstance(entries, list):
        raise ValueError(f"{path}: expected a list of entries, got {type(entries).__name__}")
    rows: dict[int, Row] = {}
    for number, entry in enumerate(entries):
        row = Row(f"{path}#{number}", entry)
        key = row.integer("question_id")
        if key in rows:
            raise ValueError(f"{row.where}: question_id {key} occurs twice")
        rows[key] = row
    return rows


def _question(key: int, asked: Row, answered: Row) -> Question:
    return Question(
        question_id=key,
        image_id=asked.integer("image_id"),
        text=asked.text("question"),
        answers=tuple(row.text("answer") for row in answered.rows("answers")),
        answer_type=answered.text("answer_type", default="") or "other",
        question_type=answered.text("question_type", default=""),
    )
