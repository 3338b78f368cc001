"""One record of the HumanOmniV2 format: its fields, its checks and its JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

# An option that begins with its letter; "U.S. flag" does not.
NAMED = re.compile(r"\(?([A-Z])[).:](?![A-Z]\.)")
# Tokens that the models' tokenizers never read as text.
SPECIAL = re.compile(
    r"<\|(?:VIDEO|AUDIO|IMAGE|(?:audio|vision)_(?:bos|eos|pad)|im_start|im_end|endoftext)\|>"
)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
CHOICE_TYPES = ("multiple choice", "emer_ov_mc")  # answered by letters of `options`
PROBLEM_TYPES = (
    *CHOICE_TYPES,
    "numerical",
    "OCR",
    "free-form",
    "regression",
    "emer_ov",
    "judge",
    "instruction",  # ours: `answer` is the exact text wanted
)
MODALITIES = ("video", "image", "audio")
CLIPS = ("videos", "video")  # folders of clips beside the questions of a download
ID_KEYS = ("id", "problem_id", "qid")


@dataclass(frozen=True)
class Record:
    """One question about some media.

    Attributes:
        id: unique within its source.
        source: the source it was mixed in from.
        problem: the question.
        problem_type: one of `PROBLEM_TYPES`.
        options: "A. text" each; empty where the type has none.
        answer: letters ("A", "A,E"), a number or a text, without tags.
        solution: a reference completion with `<context>`, `<think>` and `<answer>`; may be empty.
        data_type: what the published format calls the media: video, image, audio, or text.
        videos: files, with their own sound.
        images: files.
        audios: files of sound that belongs to no video.
        category: the benchmark's own grouping; may be empty.
        labels: emotion words of an EMER record.
        facts: what is true in a generated clip; empty for real data.
        origin: `file:line` or `file#index`, for messages.
    """

    id: str
    source: str
    problem: str
    problem_type: str
    options: tuple[str, ...]
    answer: str
    solution: str
    data_type: str
    videos: tuple[Path, ...]
    images: tuple[Path, ...]
    audios: tuple[Path, ...]
    category: str = ""
    labels: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""

    @property
    def where(self) -> str:
        """Name of the record in messages."""
        return f"{self.origin} (record {self.id!r})"


@dataclass(frozen=True)
class Entry:
    """One JSON object of a file, or the fault in its place."""

    origin: str
    raw: dict[str, Any]
    fault: str = ""


def parse_record(entry: Entry, data_root: Path, source: str) -> Record:
    """Convert a JSON object to a record; `check_record` checks that it can be used.

    Raises:
        ValueError: a key is missing or holds another type.
    """
    raw = entry.raw
    record_id = next((str(raw[key]) for key in ID_KEYS if raw.get(key) not in (None, "")), None)
    media = _media(entry, data_root)
    solution = _text(entry, "solution")
    answer = _text(entry, "answer") or solution
    facts = raw.get("facts") or {}
    if not isinstance(facts, dict):
        raise ValueError(f"{entry.origin}: facts={facts!r}; expected an object of strings")
    record = Record(
        id=record_id or Path(entry.origin).name,
        source=source,
        problem=_text(entry, "problem"),
        problem_type=_text(entry, "problem_type"),
        options=_texts(entry, "options"),
        answer=_inside_tags(answer),
        solution=solution,
        data_type=_text(entry, "data_type") or next((k for k in MODALITIES if media[k]), "text"),
        videos=media["video"],
        images=media["image"],
        audios=media["audio"],
        category=_text(entry, "category"),
        labels=_texts(entry, "clean_list"),
        facts={str(name): str(value) for name, value in facts.items()},
        origin=entry.origin,
    )
    return _lettered(record) if record.problem_type in CHOICE_TYPES else record


def check_record(record: Record) -> None:
    """Check that a record can be asked and its answer be judged.

    Raises:
        FileNotFoundError: a media file is missing.
        ValueError: its question, type, options or answer cannot be used.
    """
    if not record.problem:
        raise ValueError(f"{record.where}: problem is empty; write the question or drop the record")
    if record.problem_type not in PROBLEM_TYPES:
        raise ValueError(
            f"{record.where}: problem_type={record.problem_type!r}; expected one of "
            f"{', '.join(PROBLEM_TYPES)}"
        )
    _check_texts(record)
    if not record.answer:
        raise ValueError(
            f"{record.where}: answer and the <answer> of solution are empty; nothing can be judged"
        )
    if record.problem_type in CHOICE_TYPES:
        _check_choice(record)
    for kind, paths in media_of(record).items():
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(
                    f"{record.where}: {kind} {path} is missing; check the path and `data_root`"
                )
    if not any(media_of(record).values()) and record.data_type != "text":
        raise ValueError(
            f"{record.where}: names no media; add `path`, or data_type `text` for a bare question"
        )


def media_of(record: Record) -> dict[str, tuple[Path, ...]]:
    """Return the files of a record by modality."""
    return {"video": record.videos, "image": record.images, "audio": record.audios}


def record_json(record: Record, data_root: Path) -> dict[str, Any]:
    """Return the JSON object of a record (without `source` and `origin`).

    Paths inside `data_root` are relative to it.
    """
    media = {
        kind: [_stored(path, data_root) for path in paths]
        for kind, paths in media_of(record).items()
        if paths
    }
    row: dict[str, Any] = {
        "id": record.id,
        "problem": record.problem,
        "problem_type": record.problem_type,
        "options": list(record.options),
        "answer": record.answer,
        "solution": record.solution,
        "data_type": record.data_type,
    }
    if list(media) == [record.data_type] and len(media[record.data_type]) == 1:
        row["path"] = media[record.data_type][0]
    elif media:
        row["path"] = {
            kind: names[0] if len(names) == 1 else names for kind, names in media.items()
        }
    if record.category:
        row["category"] = record.category
    if record.labels:
        row["clean_list"] = list(record.labels)
    if record.facts:
        row["facts"] = dict(record.facts)
    return row


def _check_texts(record: Record) -> None:
    """Refuse special tokens in texts: they would stand for media, or end a turn."""
    for name, text in (
        ("problem", record.problem),
        ("options", "\n".join(record.options)),
        ("solution", record.solution),
    ):
        if special := SPECIAL.search(text):
            raise ValueError(
                f"{record.where}: {name} holds {special.group()}, a special token of the model; "
                "write it in other words"
            )
    twice = {str(path) for path in record.audios} & {str(path) for path in record.videos}
    if twice:
        raise ValueError(
            f"{record.where} lists {sorted(twice)} under videos and audios; the sound of a clip is "
            "read from the clip, so leave it out of audios"
        )


def _check_choice(record: Record) -> None:
    if not record.options:
        raise ValueError(
            f"{record.where}: options are empty, but {record.problem_type!r} needs them; list them "
            "as 'A. text' or change the type"
        )
    letters = [_option_letter(option, index) for index, option in enumerate(record.options)]
    if len(set(letters)) < len(letters):
        raise ValueError(f"{record.where}: options {letters} share a letter; give each its own")
    given = record.answer.split(",") if record.problem_type == "emer_ov_mc" else [record.answer]
    for answer in (part.strip() for part in given):
        bare = re.fullmatch(r"\(?([A-Z])[).:]*", answer)
        if (bare.group(1) if bare else answer) not in (*letters, *record.options):
            raise ValueError(
                f"{record.where}: answer {answer!r} is not among the options {', '.join(letters)}; "
                "correct the answer or add the option"
            )


def _lettered(record: Record) -> Record:
    """Put letters before options without one, and in place of answers that are whole options."""
    letters = {
        option: _option_letter(option, index)
        for index, option in enumerate(record.options)
        if not NAMED.match(option.strip())
    }
    if not letters:
        return record
    several = record.problem_type == "emer_ov_mc"

    def by_letter(answer: str) -> str:
        parts = answer.split(",") if several and answer.strip() not in letters else [answer]
        return ",".join(letters.get(part.strip(), part.strip()) for part in parts)

    return replace(
        record,
        options=tuple(f"{letters[o]}. {o}" if o in letters else o for o in record.options),
        answer=by_letter(record.answer),
        solution=_ANSWER.sub(
            lambda found: f"<answer>{by_letter(found.group(1))}</answer>", record.solution
        ),
    )


def _option_letter(option: str, index: int) -> str:
    """Return the letter that an option begins with, or that of its place in the list."""
    named = NAMED.match(option.strip())
    return named.group(1) if named else chr(ord("A") + index)


def same_option(letters: Sequence[str], options: Sequence[str]) -> bool:
    """Whether two letters name one text: some published questions list the right answer twice."""
    texts = {
        _option_letter(option, index): NAMED.sub("", option.strip(), count=1).strip()
        for index, option in enumerate(options)
    }
    found = [texts.get(one) for one in letters]
    return bool(found[0]) and len(set(found)) == 1


def _inside_tags(text: str) -> str:
    """Return the text inside `<answer>`, or the whole text without that tag."""
    tagged = _ANSWER.search(text)
    if tagged:
        return tagged.group(1).strip()
    return "" if "<think>" in text else text.strip()


def _text(entry: Entry, key: str) -> str:
    """Return a field as text; numbers are accepted, because answers often are numbers."""
    value = entry.raw.get(key)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"{entry.origin}: {key}={value!r}; expected text")
    return str(value).strip()


def _texts(entry: Entry, key: str) -> tuple[str, ...]:
    value = entry.raw.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(
        isinstance(item, (str, int, float)) for item in value
    ):
        raise ValueError(f"{entry.origin}: {key}={value!r}; expected a list of texts")
    return tuple(str(item) for item in value)


def _media(entry: Entry, data_root: Path) -> dict[str, tuple[Path, ...]]:
    """Find a record's files: `path` as a text or by modality, else keys named by modality."""
    raw = entry.raw
    place = raw.get("path")
    if isinstance(place, dict):
        unknown = sorted(set(place) - set(MODALITIES))
        if unknown:
            raise ValueError(f"{entry.origin}: path has {unknown}; expected {MODALITIES}")
        named = place
    elif place:
        kind = raw.get("data_type")
        if kind not in MODALITIES:
            raise ValueError(
                f"{entry.origin}: data_type={kind!r}; expected one of {MODALITIES}, or `path` as "
                'an object such as {"video": ..., "audio": ...}'
            )
        named = {kind: place}
    else:
        named = {kind: raw[kind] for kind in MODALITIES if raw.get(kind)}
    found = {kind: _paths(entry, named.get(kind), data_root) for kind in MODALITIES}
    # Benchmark files have a second name of the clip, `video`; in some folders only that one exists.
    if place and raw.get("video") and not all(path.is_file() for path in found["video"]):
        found["video"] = _paths(entry, raw["video"], data_root)
    return found


def _paths(entry: Entry, value: object, data_root: Path) -> tuple[Path, ...]:
    names = value if isinstance(value, list) else [value] if value else []
    paths = [_placed(data_root, name) for name in names if isinstance(name, str) and name]
    if len(paths) < len(names):
        raise ValueError(f"{entry.origin}: media {value!r}; expected a file name or a list of them")
    return tuple(paths)


def _placed(root: Path, name: str) -> Path:
    """Return the file of a name: in the folder, or in its `videos`, where IntentBench has its."""
    places = [root / name, *(root / folder / name for folder in CLIPS)]
    return next((place for place in places if place.is_file()), places[0])


def _stored(path: Path, data_root: Path) -> str:
    return (path.relative_to(data_root) if path.is_relative_to(data_root) else path).as_posix()
