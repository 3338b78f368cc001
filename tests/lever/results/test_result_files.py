from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from core_rl.config import PathsConfig
from lever.data.datasets import load_data
from lever.data.vqa_files import write_results
from lever.generation_config import Matching
from lever.model_config import ChooseConfig
from lever.results.result_files import score_results
from lever.settings import Settings
from lever.tasks.evaluate import evaluate
from tests.lever.vqa_folder import FILES, folder_config, write_vqa_folder
from tests.lever.workshop import small_settings

TEST_PAIR = replace(
    FILES, test_questions="val/questions.json", test_annotations="val/annotations.json"
)


def settings_of(folder: Path, files: Any, **choose: Any) -> Settings:
    return replace(
        small_settings(folder / "cache"),
        data_mix=folder_config(files=files),
        paths=PathsConfig(data=str(folder), cache=str(folder / "cache")),
        choose=ChooseConfig(results=str(folder / "results.json"), **choose),
    )


def ids_of(folder: Path) -> list[int]:
    asked = json.loads((folder / "questions.json").read_text())["questions"]
    return [one["question_id"] for one in asked]


def test_the_tested_pair_is_enough_and_counts_whole(tmp_path: Path) -> None:
    """60 questions although split.test is 6, and no training pair in the folder."""
    write_vqa_folder(tmp_path / "val")
    ids = ids_of(tmp_path / "val")
    write_results(tmp_path / "results.json", dict.fromkeys(ids, "bird"))
    scores = score_results(settings_of(tmp_path, TEST_PAIR), 0, Matching.official)
    assert len(scores.per_question) == 60
    assert scores.overall == 60.0  # two of ten annotators
    write_results(tmp_path / "results.json", dict.fromkeys(ids[1:], "bird"))
    with pytest.raises(ValueError, match="exactly the 60 questions asked: 1 without an answer"):
        score_results(settings_of(tmp_path, TEST_PAIR), 0, Matching.official)


def test_the_results_of_a_split_are_scored_on_the_split(tmp_path: Path) -> None:
    write_vqa_folder(tmp_path)
    settings = settings_of(tmp_path, FILES)
    data = load_data(settings.data_mix, settings.paths, 0)
    ids = [data.question_of(one.query).question_id for one in data.test]
    write_results(tmp_path / "results.json", dict.fromkeys(ids, "bird"))
    assert len(score_results(settings, 0, Matching.official).per_question) == 6


def test_question_types_are_reported_and_predictions_stemmed(tmp_path: Path) -> None:
    write_vqa_folder(tmp_path)
    path = tmp_path / "annotations.json"
    whole = json.loads(path.read_text())
    for row in whole["annotations"]:
        row["question_type"] = "animals" if row["image_id"] % 2 else "things"
        row["answers"] = [
            {"answer": "race", "raw_answer": "racing", "answer_id": i} for i in range(10)
        ]
    path.write_text(json.dumps(whole))
    write_results(tmp_path / "results.json", dict.fromkeys(ids_of(tmp_path), "racing"))
    for stem, expected in ((False, 0.0), (True, 100.0)):
        settings = settings_of(tmp_path, FILES, stem_predictions=stem)
        groups = {one.name: getattr(settings, one.name) for one in fields(settings)}
        metrics = evaluate(tmp_path / "run", 0, **groups)
        assert metrics["file/overall"] == metrics["file/question_type/animals"] == expected
        assert metrics["file/other"] == metrics["file/question_type/things"] == expected
    assert "question type" in (tmp_path / "run" / "report.txt").read_text()


def test_truths_that_are_not_stemmed_are_refused(tmp_path: Path) -> None:
    write_vqa_folder(tmp_path)
    write_results(tmp_path / "results.json", dict.fromkeys(ids_of(tmp_path), "dog"))
    with pytest.raises(ValueError, match=r"choose\.stem_predictions=true: .*no raw_answer"):
        score_results(settings_of(tmp_path, FILES, stem_predictions=True), 0, Matching.official)
