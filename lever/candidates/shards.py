"""Records of many queries, made in shards that may run side by side and may be killed.

Each record is written as a line of the shard's file as soon as it is made, so a kill loses at most
one query.  The shard that completes the set joins all of them.
"""

from __future__ import annotations

import json
import logging
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from core_rl.files import alone

log = logging.getLogger(__name__)

Json = dict[str, Any]
Make = Callable[[Sequence[int]], Iterable[tuple[int, Json]]]

_EVERY = 30.0  # seconds between two log lines of progress


def fill_shard(
    folder: Path, queries: Sequence[int], start: int, end: int | None, make: Make
) -> dict[int, Json] | None:
    """Make the missing records of `queries[start:end]`.

    Args:
        folder: of the lines of all shards; it belongs to one setting and one list of queries.
        queries: of all shards together, in the order of the joined file.
        start: index of the shard's first query.
        end: index after its last query; None = up to the end.
        make: query ids -> their records, one by one; each is written before the next is made.

    Returns:
        The records of all queries; None while records of other shards are missing.

    Raises:
        ValueError: the shard is not within the queries.
    """
    end = len(queries) if end is None else end
    if not 0 <= start < end <= len(queries):
        raise ValueError(
            f"start={start}, end={end}: expected a shard within the {len(queries)} queries, its "
            "end behind its start"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"part-{start:06d}-{end:06d}.jsonl"
    with alone(path, path.with_suffix(".lock")):
        done = read_shards(folder)
        missing = [query for query in queries[start:end] if query not in done]
        there = end - start - len(missing)
        if there:
            log.info("%s: %d of %d queries exist already", folder, there, end - start)
        _drop_half_line(path)
        if missing:
            _append(path, missing, make)
    found = read_shards(folder)
    absent = [query for query in queries if query not in found]
    if absent:
        log.info("%d queries of other shards are still missing", len(absent))
        return None
    return {query: found[query] for query in queries}


def _append(path: Path, missing: Sequence[int], make: Make) -> None:
    """Write the record of each query as soon as it is made."""
    told = time.monotonic()
    with path.open("a", encoding="utf-8") as lines:
        for count, (query, record) in enumerate(make(missing), 1):
            line = {"query": query, "record": record, "crc32": _crc(query, record)}
            lines.write(json.dumps(line) + "\n")
            lines.flush()  # so that the line survives a kill of the process
            if time.monotonic() - told > _EVERY:
                told = time.monotonic()
                log.info("%d of %d queries made", count, len(missing))


def read_shards(folder: Path) -> dict[int, Json]:
    """Read the lines of all shards; an incomplete last line is left out.

    So are damaged lines, with a warning: their queries are missing then, and made again.
    """
    found: dict[int, Json] = {}
    for path in sorted(folder.glob("part-*.jsonl")):
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        for number, line in enumerate(lines[:-1], 1):  # complete lines end with a line break
            try:
                entry = json.loads(line)
                query, record = int(entry["query"]), entry["record"]
                if "crc32" in entry and entry["crc32"] != _crc(query, record):
                    raise ValueError("its checksum differs")
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                log.warning("%s, line %d: damaged (%s); it is made again", path, number, error)
                continue
            found[query] = record
    return found


def _crc(query: int, record: Json) -> int:
    return zlib.crc32(json.dumps([query, record], sort_keys=True).encode())


def _drop_half_line(path: Path) -> None:
    """Remove an incomplete last line, which a kill may leave, before lines are added."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)
