"""Files of records in the HumanOmniV2 format.

A file is a JSON list or has one JSON object a line; both are found under the names `.json` and
`.jsonl`.  IntentBench's `qa.json` and Video-R1's files have the same keys.  Ours add `facts` (what
is true in a generated clip) and `category`.

A record that cannot be used is an error that names file, record and cure, or it is skipped and
counted.  The published reader silently trains on another record instead.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from core_rl.bad_records import Skips
from core_rl.config import OnBadRecord
from core_rl.files import atomically
from omni_rl.data.media import check_media
from omni_rl.data.record import (
    Entry,
    Record,
    check_record,
    media_of,
    parse_record,
    record_json,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """Records that can be used, and a message for each one that was skipped."""

    records: list[Record]
    skipped: tuple[str, ...] = ()


def read_records(path: str | Path, data_root: str | Path | None, source: str) -> list[Record]:
    """Read a file in which every record must be usable; see `read_file`."""
    return read_file(path, data_root, source).records


def read_file(
    path: str | Path,
    data_root: str | Path | None = None,
    source: str = "",
    on_bad_record: OnBadRecord = OnBadRecord.error,
    select: Callable[[int], Sequence[int]] = range,
) -> Reading:
    """Read and check the records of a `.json` or `.jsonl` file.

    Args:
        path: the file.
        data_root: what media paths are relative to; None for the file's own folder.
        source: name given to the records; empty for the file's stem.
        on_bad_record: whether a record that cannot be used raises or is skipped and counted.
        select: returns the indices to keep, of that many records.  Only these are checked, so that
            a part of a data set needs only its own media.

    Raises:
        FileNotFoundError: the file, or the media of a record, is missing.
        ValueError: a record cannot be used, or none is left.
    """
    path = Path(path)
    root = path.parent if data_root is None else Path(data_root)
    source = source or path.stem
    skips = Skips(on_bad_record)
    entries = []
    for entry in read_entries(path):
        if entry.fault:
            skips.add(ValueError(f"{entry.origin}: {entry.fault}"))
        else:
            entries.append(entry)
    chosen = [entries[index] for index in select(len(entries))]
    return collect(path, chosen, lambda entry: parse_record(entry, root, source), skips)


def collect(
    path: Path, entries: Iterable[Entry], parse: Callable[[Entry], Record], skips: Skips
) -> Reading:
    """Parse and check the entries of a file.

    Raises:
        FileNotFoundError: the media of a record are missing.
        ValueError: a record cannot be used, two share an id, or none is left.
    """
    records: dict[str, Record] = {}
    for entry in entries:
        try:
            record = parse(entry)
            check_record(record)
            if record.id in records:
                raise ValueError(
                    f"{record.where}: id is taken by {records[record.id].origin}; give each record "
                    "an id of its own"
                )
            records[record.id] = record
        except (ValueError, FileNotFoundError) as error:
            skips.add(error)
    skips.report(path)
    if not records:
        raise ValueError(f"{path}: no usable record ({skips.count} skipped); name another file")
    return Reading(list(records.values()), tuple(skips.messages))


def keep_decodable(
    records: Iterable[Record], on_bad_record: OnBadRecord = OnBadRecord.error
) -> Reading:
    """Keep the records whose media are undamaged; nothing is decoded.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged or cut short.
    """
    skips = Skips(on_bad_record)
    kept = []
    for record in records:
        try:
            for kind, paths in media_of(record).items():
                for path in paths:
                    check_media(path, kind)
            kept.append(record)
        except (ValueError, FileNotFoundError) as error:
            skips.add(type(error)(f"{record.where}: {error}"))
    skips.report("media")
    return Reading(kept, tuple(skips.messages))


def write_records(
    path: str | Path, records: Iterable[Record], data_root: str | Path | None = None
) -> None:
    """Write records as `.json` or `.jsonl`; an error leaves the old file.

    Args:
        path: the file; its folder must exist.
        records: what to write; `origin` is not stored.
        data_root: media inside it are stored relative to it, others as they are; None for the
            file's own folder.

    Raises:
        FileNotFoundError: the folder is missing.
        ValueError: the suffix is neither `.json` nor `.jsonl`.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: its folder does not exist; make it first")
    root = path.parent if data_root is None else Path(data_root)
    rows = [record_json(record, root) for record in records]
    if path.suffix == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    elif path.suffix == ".json":
        text = json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    else:
        raise ValueError(f"{path}: records are written as .json or .jsonl")
    with atomically(path) as beside, beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read_entries(path: Path) -> Iterator[Entry]:
    """Yield the JSON objects of a file; for a line without one an `Entry` with its `fault`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another suffix, not UTF-8, or a `.json` that is not a list.
    """
    if path.suffix not in (".json", ".jsonl"):
        raise ValueError(f"{path}: records are read from .json or .jsonl")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of records; check the data paths")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error}); save it as UTF-8") from error
    # A list, or one object a line: told by the content, not by the name.
    if text.lstrip()[:1] == "[" or (path.suffix == ".json" and not _in_lines(text)):
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg}); mend it") from error
        if not isinstance(rows, list):
            raise ValueError(f"{path}: holds a {type(rows).__name__}; expected a list of records")
        for index, row in enumerate(rows):
            yield _entry(f"{path}#{index}", row)
        return
    # splitlines() would also cut at characters that are legal inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield _entry(f"{path}:{number}", json.loads(line))
        except json.JSONDecodeError as error:
            yield Entry(f"{path}:{number}", {}, f"not JSON ({error.msg}); mend or drop the line")


def _in_lines(text: str) -> bool:
    """Whether the first line is a whole object and not the only one."""
    first, _, rest = text.lstrip().partition("\n")
    try:
        return isinstance(json.loads(first), dict) and bool(rest.strip())
    except json.JSONDecodeError:
        return False


def _entry(origin: str, row: object) -> Entry:
    if isinstance(row, dict):
        return Entry(origin, row)
    return Entry(origin, {}, f"a {type(row).__name__}; expected an object {{...}}")
