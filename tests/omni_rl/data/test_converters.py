"""Raw data sets in their published layouts, converted and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core_rl.config import OnBadRecord
from omni_rl.data.converters import convert, social_category
from omni_rl.data.record import Record
from omni_rl.data.record_files import read_records

SOCIAL: dict[str, Any] = {
    "qid": "abc_q1",
    "q": "Why does the woman smile?",
    "vid_name": "abc",
    "ts": "28.00-32.00",
    "ans_corr": "She is proud",
    "a0": "She is tired",
    "a1": "She is proud",
    "a2": "She is lost",
    "a3": "She is angry",
    "answer_idx": 1,
    "idx_types": ["rewrite", "corr", "matched", "matched"],
}
EMER = {
    "video": "face.mp4",
    "conversations": [
        {"from": "human", "value": "<video>\n<audio>\nWhich emotions does he show?"},
        {"from": "gpt", "value": "<think>he grins</think>\n<answer>happy, proud</answer>"},
    ],
}
EMER_REWRITTEN = {
    "problem": "Which emotions does he show?",
    "problem_type": "emer_ov_mc",
    "options": ["A. happy", "B. sad", "C. proud"],
    "answer": "A,C",
    "solution": "<context>c</context><think>t</think><answer>A,C</answer>",
    "clean_list": ["happy", "proud"],
    "data_type": "video",
    "path": "face.mp4",
}
VIDEO_R1 = {
    "problem_id": 2,
    "problem": "How many cups are there?",
    "data_type": "image",
    "problem_type": "numerical",
    "options": [],
    "process": "<think>one, two</think>",
    "solution": "<answer>2</answer>",
    "path": "./General/cups.png",
    "data_source": "General/cups",
}


@pytest.fixture
def media(tmp_path: Path) -> Path:
    for name in ("media/video/abc.mp4", "media/face.mp4", "media/General/cups.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path / "media"


def converted(kind: str, media: Path, *rows: object) -> list[Record]:
    """Convert rows and return what a reader of the written file gets."""
    source = media.parent / "raw.jsonl"
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    convert(kind, source, media, media.parent / "out.jsonl")
    return read_records(media.parent / "out.jsonl", media, kind)


def test_social_iq(media: Path) -> None:
    [record] = converted("social_iq", media, SOCIAL)
    assert (record.id, record.answer, record.category) == ("abc_q1", "B", "Why")
    assert record.problem_type == "multiple choice"
    assert record.options[:2] == ("A. She is tired", "B. She is proud")
    assert record.solution == "<answer>B</answer>"
    assert record.videos == (media / "video" / "abc.mp4",)


def test_emer_conversations(media: Path) -> None:
    [record] = converted("emer", media, EMER)
    assert record.problem == "Which emotions does he show?"
    assert (record.problem_type, record.answer) == ("emer_ov", "happy, proud")
    assert record.labels == ("happy", "proud")
    assert record.solution == EMER["conversations"][1]["value"]  # type: ignore[index]
    assert record.videos == (media / "face.mp4",)


def test_emer_as_rewritten(media: Path) -> None:
    [record] = converted("emer", media, EMER_REWRITTEN)
    assert (record.problem_type, record.answer) == ("emer_ov_mc", "A,C")
    assert record.labels == ("happy", "proud")
    assert len(record.options) == 3


def test_video_r1(media: Path) -> None:
    with_process, bare = converted(
        "video_r1", media, VIDEO_R1, {**VIDEO_R1, "problem_id": 3, "process": None}
    )
    assert (with_process.id, with_process.answer) == ("2", "2")
    assert with_process.solution == "<think>one, two</think>\n<answer>2</answer>"
    assert bare.solution == "<answer>2</answer>"
    assert with_process.images == (media / "General" / "cups.png",)


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        ("social_iq", SOCIAL | {"answer_idx": None}, "lacks answer_idx; the test split"),
        ("social_iq", SOCIAL | {"answer_idx": 4}, "answer_idx=4; expected 0 to 3"),
        ("social_iq", SOCIAL | {"a2": ""}, "lacks a2"),
        ("social_iq", SOCIAL | {"vid_name": "gone"}, "gone.mp4 is missing"),
        ("social_iq", SOCIAL, "id is taken by"),
        ("social_iq", [1], "a list; expected an object"),
        ("emer", EMER | {"conversations": []}, "lack a turn of `human`"),
        ("emer", EMER | {"video": "gone.mp4"}, "gone.mp4 is missing"),
        ("video_r1", VIDEO_R1 | {"problem_type": "essay"}, "problem_type='essay'"),
        ("video_r1", VIDEO_R1 | {"solution": ""}, "nothing can be judged"),
    ],
)
def test_bad_lines_are_reported(media: Path, kind: str, row: object, message: str) -> None:
    good = {"social_iq": SOCIAL, "emer": EMER, "video_r1": VIDEO_R1}[kind]
    source, out = media.parent / "raw.jsonl", media.parent / "out.jsonl"
    source.write_text(f"{json.dumps(good)}\n{json.dumps(row)}\n")
    expected = FileNotFoundError if "missing" in message else ValueError
    with pytest.raises(expected, match=rf"raw\.jsonl:2.*{message}"):
        convert(kind, source, media, out)
    assert not out.exists()
    reading = convert(kind, source, media, out, OnBadRecord.skip)
    assert len(reading.skipped) == 1
    assert len(read_records(out, media, kind)) == 1


def test_nothing_left_is_an_error(media: Path) -> None:
    source = media.parent / "raw.jsonl"
    source.write_text("{}\n")
    with pytest.raises(ValueError, match=r"no usable record \(1 skipped\)"):
        convert("video_r1", source, media, media.parent / "out.jsonl", OnBadRecord.skip)
    with pytest.raises(ValueError, match=r"kind='mafw': expected one of \['social_iq'"):
        convert("mafw", source, media, media.parent / "out.jsonl")


@pytest.mark.parametrize(
    ("question", "category"),
    [
        ("Why did he leave?", "Why"),
        ("At the end, how does she react?", "How"),
        ("Which man is calm?", "Who/Which"),
        ("Is he whatever they say?", "Other"),
    ],
)
def test_social_questions_are_grouped_by_question_word(question: str, category: str) -> None:
    assert social_category(question) == category
