from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lever.data.vqa_files import (
    read_questions,
    read_results,
    read_stems,
    stemmed,
    write_results,
)
from tests.lever.okvqa import okvqa_questions


def pair(folder: Path, questions: list[Any], annotations: list[Any]) -> tuple[Path, Path]:
    first, second = folder / "questions.json", folder / "annotations.json"
    first.write_text(json.dumps({"info": {}, "questions": questions}))
    second.write_text(json.dumps({"annotations": annotations}))
    return first, second


def asked(key: int = 7) -> dict[str, Any]:
    return {"question_id": key, "image_id": 3, "question": "What is it?"}


def answered(key: int = 7, **more: Any) -> dict[str, Any]:
    answers = [{"answer": "dog", "answer_id": 1}, {"answer": "cat", "answer_id": 2}]
    return {"question_id": key, "answers": answers, **more}


def test_a_pair_is_read_in_the_order_of_the_questions(tmp_path: Path) -> None:
    files = pair(
        tmp_path,
        [asked(9), asked(7)],
        [answered(7), answered(9, answer_type="number", question_type="how many")],
    )
    nine, seven = read_questions(*files)
    assert (nine.question_id, nine.answer_type, nine.question_type) == (9, "number", "how many")
    assert (seven.question_id, seven.answer_type, seven.question_type) == (7, "other", "")
    assert seven.answers == ("dog", "cat")
    assert (seven.image_id, seven.text) == (3, "What is it?")


def stemmed_answers(*pairs: tuple[str, str]) -> dict[str, Any]:
    answers = [{"raw_answer": raw, "answer": stem} for raw, stem in pairs]
    return {**answered(), "answers": answers}


def test_stemmed_truths_are_read_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    truths = stemmed_answers(("racing", "race"), ("race", "race"), ("Racing cars", "race car"))
    files = pair(tmp_path, [asked()], [truths])
    assert read_questions(*files)[0].answers == ("race", "race", "race car")
    assert "'race' stands for 'racing'" in caplog.text
    assert "choose.stem_predictions=true" in caplog.text


def test_predictions_are_stemmed_as_the_truths_are(tmp_path: Path) -> None:
    truths = stemmed_answers(
        ("racing", "race"), ("hot dogs", "hot dog"), ("glasses", "glass"), ("las vegas", "la vegas")
    )
    stems = read_stems(pair(tmp_path, [asked()], [truths])[1])
    said = ["Racing", "racing dogs", "las vegas", "vegas", "glasses ", "table"]
    expected = ["race", "race dog", "la vegas", "vegas", "glass", "table"]
    assert [stemmed(one, stems) for one in said] == expected
    assert read_stems(pair(tmp_path, [asked()], [answered()])[1]) == {}


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_answer_type_is_other(tmp_path: Path, value: Any) -> None:
    files = pair(tmp_path, [asked()], [answered(answer_type=value)])
    assert read_questions(*files)[0].answer_type == "other"


@pytest.mark.parametrize(
    ("questions", "annotations", "message"),
    [
        ([asked(7), asked(8)], [answered(7)], r"annotations.json: 1 question ids .*first \[8\]"),
        ([asked(7)], [answered(7), answered(8)], r"questions.json: 1 question ids .*first \[8\]"),
        ([asked(), asked()], [answered()], "questions.json#1: question_id 7 occurs twice"),
        (
            [{"question_id": "7"}],
            [answered()],
            "questions.json#0: question_id='7': expected a whole",
        ),
        ([{"question_id": True}], [answered()], "question_id=True: expected a whole"),
        (
            [{**asked(), "question": None}],
            [answered()],
            r"questions.json#0: question=None: expected a text",
        ),
        ([asked()], [{"question_id": 7}], r"annotations.json#0: answers=None: expected a list"),
        (
            [asked()],
            [{"question_id": 7, "answers": []}],
            r"annotations.json#0: answers=\[\]: expected a list that is not empty",
        ),
        (
            [asked()],
            [{"question_id": 7, "answers": [{"answer": 2}]}],
            r"annotations.json#0, answers\[0\]: answer=2: expected a text",
        ),
    ],
)
def test_a_bad_pair_names_file_question_and_field(
    tmp_path: Path, questions: list[Any], annotations: list[Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_questions(*pair(tmp_path, questions, annotations))


def test_files_that_are_absent_or_swapped(tmp_path: Path) -> None:
    questions, annotations = pair(tmp_path, [asked()], [answered()])
    with pytest.raises(FileNotFoundError, match=r"none\.json: no such file"):
        read_questions(tmp_path / "none.json", annotations)
    with pytest.raises(ValueError, match=r"annotations\.json: expected an object with a list"):
        read_questions(annotations, questions)
    annotations.write_text("{")
    with pytest.raises(ValueError, match=r"annotations\.json: not valid JSON"):
        read_questions(questions, annotations)


def test_results_go_out_in_the_official_form_and_come_back(tmp_path: Path) -> None:
    path = tmp_path / "run" / "results.json"
    write_results(path, {7: "dog", 9: "caf\u00e9"})
    assert json.loads(path.read_text()) == [
        {"question_id": 7, "answer": "dog"},
        {"question_id": 9, "answer": "caf\u00e9"},
    ]
    assert read_results(path) == {7: "dog", 9: "caf\u00e9"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"7": "dog"}, "expected a list of entries, got dict"),
        ([{"question_id": 7}], "results.json#0: answer=None: expected a text"),
        ([{"question_id": 7, "answer": "a"}] * 2, "results.json#1: question_id 7 occurs twice"),
    ],
)
def test_a_bad_results_file_is_an_error(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_results(path)


def test_the_okvqa_sample_is_read_whole() -> None:
    questions = okvqa_questions()
    assert len(questions) == 3000
    assert {len(item.answers) for item in questions} == {10}
    assert {item.answer_type for item in questions} == {"other"}
