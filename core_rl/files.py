"""Files that no reader sees half-written, and a lock between processes that make the same thing."""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from core_rl.secrets import scrub

log = logging.getLogger(__name__)


def own_name_beside(path: Path) -> Path:
    """A hidden name in the folder of `path` that no other thread, process or machine uses.

    The number of a process is not enough: containers that share a disk number theirs alike.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


@contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """Yield a path to write to; the finished file takes the place of `path`, an error leaves it.

    The folder is made where it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = own_name_beside(path)
    try:
        yield beside
        with beside.open("rb") as written:  # or a power cut may leave an empty file of that name
            os.fsync(written.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing, without secrets."""
    with atomically(path) as beside:
        beside.write_text(scrub(text), encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write JSON; NaN and infinity become null, which every reader accepts."""
    write_text(path, json.dumps(_without_nan(value), indent=2, ensure_ascii=False) + "\n")


def _without_nan(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value


@contextmanager
def alone(made: Path, lock: Path) -> Iterator[None]:
    """Hold a lock between processes, so that only one of them makes something at a time.

    The operating system frees the lock of a process that was killed.

    Args:
        made: what is made, for the log.
        lock: file of the lock, in an existing folder.
    """
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        log.info("%s: another process makes it; waiting", made)
        held.acquire()
    try:
        yield
    finally:
        held.release()
