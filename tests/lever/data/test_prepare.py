"""Official VQA downloads, checked and made into a folder that a run reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core_rl.config import OnBadRecord
from lever.data.prepare import LAYOUTS, prepare
from lever.data.vqa_files import read_questions
from tests.lever.vqa_folder import write_vqa_folder

SKIP, ERROR = OnBadRecord.skip, OnBadRecord.error


def download(raw: Path, dataset: str, part: str, first: int = 0) -> list[Path]:
    """Four pictures with three questions each; returns the pair of files."""
    made = write_vqa_folder(raw / "made", pictures=4, first=first)
    names = [LAYOUTS[dataset].questions, LAYOUTS[dataset].annotations]
    pair = [raw / name.format(part=part) for name in names]
    for old, new in zip(("questions", "annotations"), pair, strict=True):
        (made / f"{old}.json").rename(new)
    return pair


def pictures(raw: Path, part: str, ids: range) -> None:
    folder = raw / f"{part}2014"
    folder.mkdir()
    for key in ids:
        (folder / f"COCO_{part}2014_{key:012d}.jpg").write_bytes(b"")


@pytest.mark.parametrize("dataset", ["okvqa", "vqav2"])
def test_questions_without_a_picture_are_left_out_and_counted(tmp_path: Path, dataset: str) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    pair = download(raw, dataset, "train")
    download(raw, dataset, "val", first=100)
    pictures(raw, "train", range(3))
    counts = prepare(dataset, raw, out, SKIP)
    assert counts == {
        "train_questions": 9,
        "train_pictures": 3,
        "train_skipped": 3,
        "val_questions": 12,
        "val_pictures": 0,
        "val_skipped": 0,
    }
    assert len(read_questions(*(out / path.name for path in pair))) == 9
    assert (out / "train2014").is_dir()
    before = (out / pair[0].name).stat().st_mtime_ns
    assert prepare(dataset, raw, out, SKIP) == counts
    assert (out / pair[0].name).stat().st_mtime_ns == before
    with pytest.raises(FileNotFoundError, match="lacks the pictures of 3 of 12 questions"):
        prepare(dataset, raw, out, ERROR)


def test_what_is_missing_is_said_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no OpenEnded.*published at https://okvqa"):
        prepare("okvqa", tmp_path, tmp_path / "out", SKIP)
    pair = download(tmp_path, "okvqa", "train")
    assert prepare("okvqa", tmp_path, tmp_path / "out", SKIP)["train_questions"] == 12
    pair[1].write_text(json.dumps({"annotations": []}))
    with pytest.raises(ValueError, match="12 question ids"):
        prepare("okvqa", tmp_path, tmp_path / "out", SKIP)
