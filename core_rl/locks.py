"""One process at a time at what several would make."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)


@contextmanager
def alone(made: Path, lock: Path) -> Iterator[None]:
    """Wait until no other process makes something; it is then there to be read.

    The system lets go of the lock of a process that was killed.

    Args:
        made: what is made, for the log.
        lock: file of the lock; its folder must be there.
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
