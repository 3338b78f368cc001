"""Conversion of published data sets to files of records.

Social-IQ 2.0: one question a line with `qid, q, vid_name, a0..a3, answer_idx`.  Its `ts` (the
seconds that the question is about) is not used: as in the published training the whole clip is.
Some of its qids stand for several questions; all but the first get an id by their content.
EMER: HumanOmniV2's file (already in the record format, labels under `clean_list`), or R1-Omni's
conversations.  Video-R1: both files; the reasoning under `process` becomes part of the solution.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

from core_rl.bad_records import Skips
from core_rl.config import OnBadRecord
from omni_rl.data.record import Entry, Record, parse_record
from omni_rl.data.record_files import Reading, collect, read_entries, write_records

log = logging.getLogger(__name__)

LETTERS = "ABCD"
SOCIAL_IQ_FOLDERS = ("", "video", "videos")  # inside the media folder, of its clips
CATEGORIES = {
    **{word: word.capitalize() for word in ("why", "how", "what", "when")},
    **dict.fromkeys(("who", "whose", "whom", "which"), "Who/Which"),
}


class RawKind(Enum):
    """Which published layout a file has."""

    social_iq = "social_iq"
    emer = "emer"
    video_r1 = "video_r1"


def convert(
    kind: str,
    source: str | Path,
    media_root: str | Path,
    out: str | Path,
    on_bad_record: OnBadRecord = OnBadRecord.error,
) -> Reading:
    """Convert a raw file to a file of records; an error leaves `out` unwritten.

    Args:
        kind: social_iq, emer or video_r1.
        source: the raw `.json` or `.jsonl`.
        media_root: folder of the media; paths in `out` are relative to it.
        out: the `.json` or `.jsonl` to write.
        on_bad_record: whether a line that cannot be used raises or is skipped and counted.

    Returns:
        The records written, and a message for each line that was skipped.

    Raises:
        FileNotFoundError: the raw file or a media file is missing.
        ValueError: an unknown kind, a bad line, or nothing left to write.
    """
    try:
        raw_kind = RawKind(kind)
    except ValueError as error:
        known = [member.value for member in RawKind]
        raise ValueError(f"kind={kind!r}: expected one of {known}") from error
    reading = read_raw(raw_kind, Path(source), Path(media_root), on_bad_record)
    write_records(out, reading.records, Path(media_root))
    log.info("%s: %d %s records written to %s", source, len(reading.records), kind, out)
    return reading


def read_raw(kind: RawKind, source: Path, root: Path, on_bad_record: OnBadRecord) -> Reading:
    """Read a raw file as records; `root` is the folder of its media.

    Raises:
        FileNotFoundError: the raw file or a media file is missing.
        ValueError: a bad line, or nothing left.
    """
    entries = read_entries(source)
    if kind is RawKind.social_iq:
        entries = _with_own_ids(entries)
    return collect(source, entries, lambda entry: _record(kind, entry, root), Skips(on_bad_record))


def social_category(question: str) -> str:
    """Return IntentBench's group of a social question, by its first question word."""
    for word in re.findall(r"[a-z]+", question.lower()):
        if word in CATEGORIES:
            return CATEGORIES[word]
    return "Other"


def _with_own_ids(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Give a further question under a known qid an id by its content."""
    seen: dict[object, str] = {}
    for entry in entries:
        qid = entry.raw.get("qid")
        content = json.dumps(entry.raw, sort_keys=True)
        if seen.setdefault(qid, content) != content:
            digest = hashlib.sha256(content.encode()).hexdigest()[:8]
            entry = replace(entry, raw={**entry.raw, "qid": f"{qid}-{digest}"})
        yield entry


def _record(kind: RawKind, entry: Entry, root: Path) -> Record:
    if entry.fault:
        raise ValueError(f"{entry.origin}: {entry.fault}")
    if kind is RawKind.social_iq:
        return parse_record(_social_iq(entry, root), root, kind.value)
    if kind is RawKind.emer and "conversations" in entry.raw:
        return parse_record(_emer_conversation(entry), root, kind.value)
    record = parse_record(entry, root, kind.value)
    process = entry.raw.get("process")
    if kind is RawKind.video_r1 and isinstance(process, str) and process.strip():
        return replace(record, solution=f"{process.strip()}\n{record.solution}")
    return record


def _social_iq(entry: Entry, root: Path) -> Entry:
    raw = entry.raw
    needed = ("qid", "q", "vid_name", "a0", "a1", "a2", "a3", "answer_idx")
    missing = [key for key in needed if raw.get(key) in (None, "")]
    if missing:
        raise ValueError(
            f"{entry.origin}: lacks {', '.join(missing)}; the test split has no answers and cannot "
            "be converted"
        )
    index = str(raw["answer_idx"])
    if index not in ("0", "1", "2", "3"):
        raise ValueError(f"{entry.origin}: answer_idx={raw['answer_idx']!r}; expected 0 to 3")
    clip = f"{raw['vid_name']}.mp4"
    places = [Path(folder) / clip for folder in SOCIAL_IQ_FOLDERS]
    letter = LETTERS[int(index)]
    row = {
        "id": raw["qid"],
        "problem": raw["q"],
        "problem_type": "multiple choice",
        "options": [f"{name}. {raw[f'a{i}']}" for i, name in enumerate(LETTERS)],
        "answer": letter,
        "solution": f"<answer>{letter}</answer>",
        "data_type": "video",
        "path": str(next((place for place in places if (root / place).is_file()), places[0])),
        "category": social_category(str(raw["q"])),
    }
    return replace(entry, raw=row)


def _emer_conversation(entry: Entry) -> Entry:
    """Turn `[{from: human, value}, {from: gpt, value}]` into an open-vocabulary record."""
    turns = entry.raw["conversations"]
    said: dict[object, str] = {}
    if isinstance(turns, list):
        said = {t.get("from"): str(t.get("value") or "") for t in turns if isinstance(t, dict)}
    if not said.get("human") or not said.get("gpt"):
        raise ValueError(f"{entry.origin}: conversations lack a turn of `human` or of `gpt`")
    answer = re.search(r"<answer>(.*?)</answer>", said["gpt"], re.DOTALL)
    words = (answer.group(1) if answer else "").split(",")
    row: dict[str, Any] = {
        "id": entry.raw.get("id"),
        "video": entry.raw.get("video"),
        "problem": re.sub(r"<(video|audio|image)>", "", said["human"]).strip(),
        "problem_type": "emer_ov",
        "solution": said["gpt"],
        "data_type": "video",
        "clean_list": [word.strip() for word in words if word.strip()],
    }
    return replace(entry, raw=row)
