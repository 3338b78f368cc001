"""The record format: every problem type, every fault named or counted, and a true round trip."""

from __future__ import annotations

import json
import logging
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core_rl.config import OnBadRecord
from omni_rl.data.record import CHOICE_TYPES, PROBLEM_TYPES, Record
from omni_rl.data.record_files import keep_decodable, read_file, read_records, write_records
from omni_rl.rewards.answers import letter, score_answer
from tests.omni_rl.clips import clip_file, sound_file

SOLUTION = "<context>a man waves</context><think>he greets</think><answer>B</answer>"
GOOD: dict[str, Any] = {
    "problem": "What does the man do?",
    "problem_type": "multiple choice",
    "options": ["A. He bows", "B. He waves"],
    "answer": "B",
    "solution": SOLUTION,
    "data_type": "video",
    "path": "clip.mp4",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of media; for most tests an empty file will do."""
    for name in ("clip.mp4", "other.mp4", "face.png", "voice.wav"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def write_lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in rows))
    return path


def read_one(folder: Path, **change: Any) -> Record:
    row = {key: value for key, value in (GOOD | change).items() if value is not None}
    [record] = read_records(write_lines(folder / "one.jsonl", row), folder, "social")
    return record


def test_all_fields_arrive(folder: Path) -> None:
    extra = {"id": 7, "category": "What", "clean_list": ["happy"], "facts": {"count": 2}}
    assert read_one(folder, **extra) == Record(
        id="7",
        source="social",
        problem="What does the man do?",
        problem_type="multiple choice",
        options=("A. He bows", "B. He waves"),
        answer="B",
        solution=SOLUTION,
        data_type="video",
        videos=(folder / "clip.mp4",),
        images=(),
        audios=(),
        category="What",
        labels=("happy",),
        facts={"count": "2"},
        origin=f"{folder / 'one.jsonl'}:1",
    )


@pytest.mark.parametrize(
    ("change", "videos", "images", "audios"),
    [
        ({"path": "clip.mp4"}, ["clip.mp4"], [], []),
        ({"path": "./clip.mp4"}, ["clip.mp4"], [], []),
        ({"path": "face.png", "data_type": "image"}, [], ["face.png"], []),
        ({"path": "voice.wav", "data_type": "audio"}, [], [], ["voice.wav"]),
        (
            {"path": {"image": "face.png", "audio": "voice.wav"}, "data_type": "image_audio"},
            *([], ["face.png"], ["voice.wav"]),
        ),
        ({"path": {"video": ["clip.mp4", "other.mp4"]}}, ["clip.mp4", "other.mp4"], [], []),
        ({"path": None, "video": "clip.mp4"}, ["clip.mp4"], [], []),
        ({"path": "elsewhere/x.mp4", "video": "clip.mp4"}, ["clip.mp4"], [], []),
        ({"path": "other.mp4", "video": "clip.mp4"}, ["other.mp4"], [], []),
        ({"path": None, "data_type": "text"}, [], [], []),
    ],
)
def test_media_are_found(
    folder: Path, change: dict[str, Any], videos: list[str], images: list[str], audios: list[str]
) -> None:
    record = read_one(folder, **change)
    assert list(record.videos) == [folder / name for name in videos]
    assert list(record.images) == [folder / name for name in images]
    assert list(record.audios) == [folder / name for name in audios]


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({"answer": "<answer> B </answer>"}, "B"),
        ({"answer": None}, "B"),  # taken from the solution
        ({"answer": None, "solution": "<answer>A</answer>"}, "A"),
        ({"answer": "B."}, "B."),
        ({"answer": "B. He waves"}, "B. He waves"),
        ({"options": ["He bows", "He waves"]}, "B"),  # letters by place
        ({"problem_type": "emer_ov_mc", "answer": "A, B"}, "A, B"),
        ({"problem_type": "numerical", "answer": 3, "options": []}, "3"),
        ({"problem_type": "regression", "answer": 2.5, "options": None}, "2.5"),
        ({"problem_type": "OCR", "answer": "EXIT", "options": None}, "EXIT"),
        ({"problem_type": "free-form", "answer": "he greets", "options": None}, "he greets"),
        ({"problem_type": "emer_ov", "answer": "happy, calm", "options": None}, "happy, calm"),
        ({"problem_type": "judge", "answer": "Yes", "options": None}, "Yes"),
        ({"problem_type": "instruction", "answer": "blue", "options": None}, "blue"),
    ],
)
def test_answers_of_every_type_are_read(folder: Path, change: dict[str, Any], answer: str) -> None:
    assert read_one(folder, **change).answer == answer


@pytest.mark.parametrize(
    ("kind", "options", "answer", "letters"),
    [
        ("multiple choice", ["Yes", "No"], "No", "B"),
        ("multiple choice", ["Yes", "No"], "B", "B"),
        ("multiple choice", ["Yes", "B) No"], "Yes", "A"),
        ("emer_ov_mc", ["calm", "sad", "glad, proud"], "sad, calm", "B,A"),
        ("emer_ov_mc", ["calm", "sad", "glad, proud"], "glad, proud", "C"),
    ],
)
def test_bare_options_get_the_letters_of_their_places(
    folder: Path, kind: str, options: list[str], answer: str, letters: str
) -> None:
    solution = f"<think>so</think><answer>{answer}</answer>"
    record = read_one(folder, problem_type=kind, options=options, answer=answer, solution=solution)
    shown = zip(record.options, options, strict=True)
    assert all(
        mine == given if given.startswith("B)") else mine == f"{letter}. {given}"
        for letter, (mine, given) in zip("ABC", shown, strict=False)
    )
    assert record.answer == letters
    assert record.solution == f"<think>so</think><answer>{letters}</answer>"
    assert score_answer(record, record.solution) == 1.0


@pytest.mark.parametrize(
    ("change", "name"),
    [({"id": "x", "problem_id": 2}, "x"), ({"problem_id": 2}, "2"), ({"qid": "q9"}, "q9")],
)
def test_ids_come_from_the_first_key_that_has_one(
    folder: Path, change: dict[str, Any], name: str
) -> None:
    assert read_one(folder, **change).id == name
    assert read_one(folder).id == "one.jsonl:1"


# What is wrong, and what the message must say beside file and record.
FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"problem": ""}, "problem is empty"),
    ({"problem_type": "multi choice"}, "problem_type='multi choice'; expected one of multiple ch"),
    ({"options": []}, "options are empty, but 'multiple choice' needs them"),
    ({"options": None, "problem_type": "emer_ov_mc"}, "options are empty"),
    ({"options": "A. x"}, "options='A. x'; expected a list"),
    ({"options": ["A. x", "A. y"]}, "share a letter"),
    ({"answer": "C"}, "answer 'C' is not among the options A, B"),
    ({"answer": "b"}, "answer 'b' is not among"),
    ({"answer": "A,B"}, "answer 'A,B' is not among"),
    ({"answer": "A,E", "problem_type": "emer_ov_mc"}, "answer 'E' is not among"),
    ({"answer": "", "solution": ""}, "nothing can be judged"),
    ({"answer": None, "solution": "<think>so</think>"}, "nothing can be judged"),
    ({"answer": ["B"]}, r"answer=\['B'\]; expected text"),
    ({"path": "gone.mp4"}, "gone.mp4 is missing; check the path and `data_root`"),
    ({"path": None}, "names no media"),
    ({"path": 3}, "media 3; expected a file name"),
    ({"path": {"film": "clip.mp4"}}, r"path has \['film'\]"),
    ({"data_type": "film"}, "data_type='film'"),
    ({"facts": ["red"]}, "facts="),
]


@pytest.mark.parametrize(("change", "message"), FAULTS)
def test_a_fault_names_file_and_record(folder: Path, change: dict[str, Any], message: str) -> None:
    bad = {key: value for key, value in (GOOD | change).items() if value is not None}
    path = write_lines(folder / "bad.jsonl", GOOD, bad)
    expected = FileNotFoundError if "missing" in message else ValueError
    with pytest.raises(expected, match=rf"bad\.jsonl:2.*{message}"):
        read_file(path)


@pytest.mark.parametrize(("change", "message"), FAULTS)
def test_a_fault_can_be_a_counted_skip(
    folder: Path, change: dict[str, Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    bad = {key: value for key, value in (GOOD | change).items() if value is not None}
    path = write_lines(folder / "bad.jsonl", GOOD, bad)
    with caplog.at_level(logging.WARNING):
        reading = read_file(path, on_bad_record=OnBadRecord.skip)
    assert [record.id for record in reading.records] == ["bad.jsonl:1"]
    assert len(reading.skipped) == 1
    assert "bad.jsonl:2" in reading.skipped[0]
    assert "skipped 1 records" in caplog.text


def test_a_wrong_line_is_named_by_its_number(folder: Path) -> None:
    path = write_lines(folder / "bad.jsonl", GOOD, "", '{"problem": ', "[1]", GOOD)
    with pytest.raises(ValueError, match=r"bad\.jsonl:3: not JSON \(Expecting value\)"):
        read_file(path)
    reading = read_file(path, on_bad_record=OnBadRecord.skip)
    assert [record.id for record in reading.records] == ["bad.jsonl:1", "bad.jsonl:5"]
    assert ["not JSON" in reading.skipped[0], "a list" in reading.skipped[1]] == [True, True]


def test_a_broken_list_is_an_error_even_when_skipping(folder: Path) -> None:
    path = folder / "bad.json"
    path.write_text('[{"problem": "?"},\n{"problem" "?"}]')
    with pytest.raises(ValueError, match=r"bad\.json:2: not JSON"):
        read_file(path, on_bad_record=OnBadRecord.skip)
    path.write_text('{"problem": "?"}')
    with pytest.raises(ValueError, match="holds a dict; expected a list"):
        read_file(path)


def test_a_list_and_lines_are_told_by_content_not_by_name(folder: Path) -> None:
    lines = write_lines(folder / "lines.json", GOOD | {"qid": 1}, GOOD | {"qid": 2})
    whole = folder / "list.jsonl"
    whole.write_text(json.dumps([GOOD | {"qid": 1}, GOOD | {"qid": 2}], indent=1))
    for path in (lines, whole):
        path.write_text(path.read_text(), encoding="utf-8-sig")
        assert [record.id for record in read_file(path).records] == ["1", "2"]
    lines.write_text(f'{json.dumps(GOOD)}\n{{"problem": \n')
    with pytest.raises(ValueError, match=r"lines\.json:2: not JSON"):
        read_file(lines)


@pytest.mark.parametrize("name", ["problem", "solution", "options"])
@pytest.mark.parametrize("token", ["<|IMAGE|>", "<|im_end|>", "<|audio_bos|>"])
def test_special_tokens_in_texts_are_refused(folder: Path, name: str, token: str) -> None:
    text: Any = f"Look {token} here"
    value = [f"A. {text}", "B. He waves"] if name == "options" else text
    path = write_lines(folder / "special.jsonl", GOOD, GOOD | {"qid": "q", name: value})
    with pytest.raises(ValueError, match=rf"record 'q'.*{name} holds {re.escape(token)}"):
        read_file(path)
    assert len(read_file(path, on_bad_record=OnBadRecord.skip).records) == 1


def test_a_file_under_video_and_audio_is_refused(folder: Path) -> None:
    twice = GOOD | {"path": {"video": "clip.mp4", "audio": "clip.mp4"}}
    with pytest.raises(ValueError, match="under videos and audios; the sound of a clip is read"):
        read_file(write_lines(folder / "twice.jsonl", twice))


def test_a_flag_has_no_letter(folder: Path) -> None:
    flags = GOOD | {"options": ["U.S. flag", "U.K. flag"], "answer": "U.K. flag", "solution": ""}
    [found] = read_file(write_lines(folder / "flags.jsonl", flags)).records
    assert (found.options, found.answer) == (("A. U.S. flag", "B. U.K. flag"), "B")
    assert letter("U.K. flag", found.options) == "U.K. flag"
    assert letter("B. U.K. flag", found.options) == "B"


def test_ids_are_unique(folder: Path) -> None:
    path = write_lines(folder / "two.jsonl", GOOD | {"qid": "q"}, GOOD | {"qid": "q"})
    with pytest.raises(ValueError, match=r"two\.jsonl:2 \(record 'q'\): id is taken by .*:1;"):
        read_file(path)
    assert len(read_file(path, on_bad_record=OnBadRecord.skip).records) == 1


def test_an_empty_source_is_an_error(folder: Path) -> None:
    for row in ("", GOOD | {"problem": ""}):
        path = write_lines(folder / "none.jsonl", row)
        with pytest.raises(ValueError, match=r"none\.jsonl: no usable record"):
            read_file(path, on_bad_record=OnBadRecord.skip)


def test_files_of_records_are_checked(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.jsonl: no such file of records"):
        read_file(folder / "gone.jsonl")
    with pytest.raises(ValueError, match=r"records are read from \.json or \.jsonl"):
        read_file(folder / "clip.mp4")
    (folder / "latin.jsonl").write_bytes('{"problem": "é"}'.encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8"):
        read_file(folder / "latin.jsonl")


def test_benchmark_file_layout(folder: Path) -> None:
    rows = [
        GOOD | {"video": "clip.mp4", "path": "videos/x/clip.mp4"},
        GOOD | {"problem_type": "judge", "options": [], "answer": "No", "solution": "No"},
    ]
    (folder / "qa.json").write_text("\ufeff" + json.dumps(rows), encoding="utf-8")
    records = read_records(folder / "qa.json", None, "intentbench")
    assert [record.id for record in records] == ["qa.json#0", "qa.json#1"]
    assert [record.answer for record in records] == ["B", "No"]


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20).map(str.strip)


@settings(deadline=None)  # every example writes through to the disk
@given(
    problem=TEXT.filter(bool),
    problem_type=st.sampled_from(sorted(set(PROBLEM_TYPES) - set(CHOICE_TYPES))),
    answer=TEXT.filter(lambda text: bool(text) and "<" not in text),
    solution=TEXT,
    category=TEXT,
    labels=st.lists(TEXT, max_size=3),
    facts=st.dictionaries(TEXT, TEXT, max_size=3),
    media=st.lists(st.sampled_from(["clip.mp4", "other.mp4"]), min_size=1, max_size=2),
    suffix=st.sampled_from([".json", ".jsonl"]),
)
def test_what_is_written_reads_back(
    tmp_path_factory: pytest.TempPathFactory,
    media: list[str],
    labels: list[str],
    suffix: str,
    **texts: Any,
) -> None:
    folder = tmp_path_factory.mktemp("round")
    for name in ("clip.mp4", "other.mp4"):
        (folder / name).write_bytes(b"")
    videos = tuple(folder / name for name in media)
    record = Record(
        id="r",
        source="s",
        options=(),
        data_type="video",
        videos=videos,
        images=(),
        audios=(),
        labels=tuple(labels),
        **texts,
    )
    path = folder / f"records{suffix}"
    write_records(path, [record], folder)
    [read] = read_records(path, folder, "s")
    assert replace(read, origin="") == record


def test_media_outside_the_root_keep_their_whole_path(folder: Path) -> None:
    (folder / "sub").mkdir()
    record = read_one(folder, path={"image": "face.png", "audio": "voice.wav"}, data_type="both")
    write_records(folder / "sub" / "r.jsonl", [record])
    row = json.loads((folder / "sub" / "r.jsonl").read_text())
    assert row["path"] == {"image": str(folder / "face.png"), "audio": str(folder / "voice.wav")}
    [read] = read_records(folder / "sub" / "r.jsonl", None, "social")
    assert (read.images, read.audios) == (record.images, record.audios)


def test_a_failed_write_leaves_the_old_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = read_one(folder)
    write_records(folder / "kept.jsonl", [record])
    before = (folder / "kept.jsonl").read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_records(folder / "kept.jsonl", [record, record])
    assert (folder / "kept.jsonl").read_bytes() == before
    assert [file.name for file in folder.iterdir() if "kept" in file.name] == ["kept.jsonl"]
    with pytest.raises(ValueError, match=r"written as \.json or \.jsonl"):
        write_records(folder / "kept.csv", [record])
    with pytest.raises(FileNotFoundError, match="folder does not exist"):
        write_records(folder / "none" / "kept.jsonl", [record])


def test_damaged_media_are_found_before_a_run(tmp_path: Path) -> None:
    clip_file(tmp_path / "clip.mp4")
    clip_file(tmp_path / "silent.mp4", sound=False)
    sound_file(tmp_path / "voice.wav")
    content = (tmp_path / "clip.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    rows = [
        GOOD,
        GOOD | {"path": "cut.mp4"},
        GOOD | {"path": "silent.mp4"},
        GOOD | {"path": "voice.wav", "data_type": "audio"},
        GOOD | {"path": "voice.wav"},
    ]
    records = read_records(write_lines(tmp_path / "r.jsonl", *rows), None, "s")
    with pytest.raises(ValueError, match=r"r\.jsonl:2 \(record .*cut\.mp4: .*cut short"):
        keep_decodable(records)
    reading = keep_decodable(records, OnBadRecord.skip)
    assert [record.id for record in reading.records] == ["r.jsonl:1", "r.jsonl:3", "r.jsonl:4"]
    assert "r.jsonl:2" in reading.skipped[0]
    assert "voice.wav: holds no video" in reading.skipped[1]
    gone = [replace(records[0], videos=(tmp_path / "gone.mp4",))]
    with pytest.raises(FileNotFoundError, match=r"r\.jsonl:1 .*gone\.mp4"):
        keep_decodable(gone)
