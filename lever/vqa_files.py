"""The official VQA files: questions with annotations, read strictly, and results, written whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core_rl.artifacts import write_json


@dataclass(frozen=True)
class Question:
    """A visual question with its annotators' answers.

    Attributes:
        question_id: unique in its data set.
        image_id: of the picture.
        text: the question.
        answers: one an annotator, as written; ten in VQAv2 and OK-VQA.
        answer_type: yes/no, number or other; `other` where the file does not say.
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

    OK-VQA's annotations hold a stemmed `answer` and a `raw_answer`; the stemmed one is what its
    published scores are of, and what is read.

    Raises:
        FileNotFoundError: one of the files is missing.
        ValueError: not JSON, a field is missing or of another type, an id occurs twice, or the two
            files are not of the same questions.
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
    return [
        _question(Path(questions), asked[key], Path(annotations), answered[key]) for key in asked
    ]


def write_results(path: str | Path, predictions: Mapping[int, str]) -> None:
    """Write predictions as the evaluation servers take them: a list of question_id and answer."""
    rows = [{"question_id": key, "answer": answer} for key, answer in predictions.items()]
    write_json(Path(path), rows)


def read_results(path: str | Path) -> dict[int, str]:
    """Read a results file.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: not a list of `{question_id, answer}`, or an id occurs twice.
    """
    path = Path(path)
    predictions: dict[int, str] = {}
    for number, row in enumerate(_list(path, _load(path))):
        where = f"{path}#{number}"
        key = _field(where, row, "question_id", int)
        if key in predictions:
            raise ValueError(f"{where}: question_id {key} occurs twice")
        predictions[key] = _field(where, row, "answer", str)
    return predictions


def _by_id(path: Path, name: str) -> dict[int, Any]:
    whole = _load(path)
    if not isinstance(whole, dict) or name not in whole:
        raise ValueError(f"{path}: expected an object with a list {name!r}")
    rows: dict[int, Any] = {}
    for number, row in enumerate(_list(path, whole[name])):
        key = _field(f"{path}#{number}", row, "question_id", int)
        if key in rows:
            raise ValueError(f"{path}#{number}: question_id {key} occurs twice")
        rows[key] = row
    return rows


def _question(asked_in: Path, asked: Any, answered_in: Path, answered: Any) -> Question:
    key = asked["question_id"]
    where = f"{answered_in}: question {key}"
    answers = tuple(_answers(where, _field(where, answered, "answers", list)))
    if not answers:
        raise ValueError(
            f"{where}: 'answers' is empty; each question needs its annotators' answers"
        )
    return Question(
        question_id=key,
        image_id=_field(f"{asked_in}: question {key}", asked, "image_id", int),
        text=_field(f"{asked_in}: question {key}", asked, "question", str),
        answers=answers,
        answer_type=answered.get("answer_type") or "other",
        question_type=answered.get("question_type") or "",
    )


def _answers(where: str, entries: list[Any]) -> Iterable[str]:
    for number, entry in enumerate(entries):
        yield _field(f"{where}, answers[{number}]", entry, "answer", str)


def _load(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the path of an official VQA JSON file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error


def _list(path: Path, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{path}: expected a list of entries, got {type(value).__name__}")
    return value


def _field(where: str, row: Any, name: str, kind: type) -> Any:
    value = row.get(name) if isinstance(row, dict) else None
    # bool is an int to Python and not to anyone else.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{where}: {name}={value!r}: expected {kind.__name__}")
    return value
