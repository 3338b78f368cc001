"""Lever on questions with pictures: official files and easy-vqa, as a user runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lever.candidates.beams import read_beams
from tests.end_to_end.running import start
from tests.lever.vqa_folder import write_vqa_folder

SPLIT = (
    "trainer=smoke",
    "logger=none",
    "data_mix.split.demos=30",
    "data_mix.split.train=5",
    "data_mix.split.val=3",
    "data_mix.split.test=4",
    "data_mix.candidate_num=8",
    "data_mix.text_encoder.dims=6",
)
FILES = (
    "data_mix=lever_okvqa",
    "data_mix.files.questions=questions.json",
    "data_mix.files.annotations=annotations.json",
    "data_mix.files.tags=tags.json",
)
PICTURES = (
    "data_mix.files.pictures=pictures",
    "data_mix.files.picture_name='picture_{image_id:04d}.png'",
    "data_mix.image_encoder.kind=statistics",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vqa_folder(tmp_path_factory.mktemp("vqa"))


@pytest.mark.parametrize("pictures", [(), PICTURES], ids=["tags", "pictures"])
def test_beam_data_of_official_files(
    folder: Path, tmp_path: Path, pictures: tuple[str, ...]
) -> None:
    done = start(
        "+exp=lever_beams", *FILES, f"paths.data={folder}", *SPLIT, *pictures, output=tmp_path
    )
    said = done.out + done.err
    assert "30 demonstrations, 5 training, 3 validation and 4 test queries" in said
    assert "stand-in" in said
    [path] = (tmp_path / "cache" / "lever").rglob("vqa-*.json")
    records = read_beams(path)
    assert len(records) == 5
    assert all(len(record.pool) == 8 for record in records)


def test_a_folder_without_the_files_is_one_clear_line(tmp_path: Path) -> None:
    asked = ("+exp=lever_beams", *FILES, f"paths.data={tmp_path}")
    done = start(*asked, output=tmp_path / "out", code=1)
    assert "questions.json: no such file" in done.err
    assert "Traceback" not in done.out + done.err


def test_beam_data_of_easyvqa(tmp_path: Path) -> None:
    pytest.importorskip("easy_vqa", reason="easy-vqa is not installed: the extra easyvqa has it")
    start("+exp=lever_beams", "data_mix=lever_easyvqa", *SPLIT, output=tmp_path)
    [path] = (tmp_path / "cache" / "lever").rglob("vqa-*.json")
    assert len(read_beams(path)) == 5
