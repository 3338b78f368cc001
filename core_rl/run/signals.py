"""SIGTERM: what a cluster sends before it takes a machine away.

A training saves at the end of its step and the run ends with the code `REQUEUE`; what is no
training ends at once.  Nothing slow is imported here.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: try again later


class TerminatedError(BaseException):
    """SIGTERM arrived; no `except Exception` on the way may take it for a failure."""


class _State:
    asked = False  # SIGTERM arrived
    saves = False  # a training runs, which saves first


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM into TerminatedError; outside a main thread, change nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _State.asked = False


@contextmanager
def saving_first() -> Iterator[None]:
    """Leave it to a training to ask, between its steps, whether to end."""
    before, _State.saves = _State.saves, True
    try:
        yield
    finally:
        _State.saves = before


def asked_to_end() -> bool:
    """Whether SIGTERM has arrived."""
    return _State.asked


def _handle(number: int, frame: FrameType | None) -> None:
    _State.asked = True
    if not _State.saves:
        raise TerminatedError("ended by SIGTERM")
