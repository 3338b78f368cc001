"""Where the OK-VQA sample lies, on machines that have it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lever.data.vqa_files import Question, read_questions


def okvqa_folder() -> Path:
    beside = Path(__file__).parents[3] / "shared" / "data" / "okvqa"
    return Path(os.environ.get("OKVQA_DIR", beside))


def okvqa_questions() -> list[Question]:
    folder = okvqa_folder()
    questions = folder / "OpenEnded_mscoco_train2014_questions.json"
    if not questions.is_file():
        pytest.skip(f"no OK-VQA sample in {folder}: set OKVQA_DIR to a folder that has one")
    return read_questions(questions, folder / "mscoco_train2014_annotations.json")
