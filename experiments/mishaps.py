"""Errors of files, in one line with the file and the cure: full disks, rights, damaged content."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

PACKAGES = ("core_rl", "omni_rl", "lever", "sa2va_rl", "experiments")

# Raised by readers, which do not say of which file; by name, because importing them takes seconds.
UNREADABLE = {
    "ArrowInvalid",
    "BadZipFile",
    "DecodeError",
    "EOFError",
    "JSONDecodeError",
    "ParserError",
    "RecursionError",
    "SafetensorError",
    "ScannerError",
    "UnicodeDecodeError",
    "UnidentifiedImageError",
    "UnpicklingError",
    "YAMLError",
}
_PLACES = ("path", "file", "folder", "source", "target", "name")  # what a reader calls its file

_FULL = (errno.ENOSPC, errno.EDQUOT)
_RIGHTS = (errno.EACCES, errno.EPERM, errno.EROFS)
_KIND = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP)


def told(error: BaseException) -> str | None:
    """Say in one line what is wrong with which file, and how to mend it; None for other errors."""
    if isinstance(error, OSError) and error.errno is not None:
        return _of_system(error)
    if type(error).__name__ not in UNREADABLE:
        return None
    what = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, RecursionError):
        what = "it is nested too deeply"
    return (
        f"{_file(error) or 'a file'}: cannot be read ({type(error).__name__}: {what}): it is "
        "damaged or of another kind; replace it, or delete it if this program has made it (under "
        "paths.cache), and run again"
    )


def _of_system(error: OSError) -> str:
    where = error.filename2 or error.filename or _file(error) or "a file"
    said = f"{where}: {error.strerror}"
    if error.errno in _FULL:
        return (
            f"{said}: free some space there, or choose another disk by paths.output, paths.cache "
            "or the environment variable TMPDIR; the last checkpoint is whole, and "
            "trainer.resume=auto goes on from it"
        )
    if error.errno in _RIGHTS:
        cure = "change its rights, or choose another folder by paths.output or paths.cache"
        return f"{said}: {cure}"
    if error.errno in _KIND:
        return (
            f"{said}: a file stands where a folder should be, the reverse, or a link leads "
            "nowhere; move it away, or choose another folder by paths.output or paths.cache"
        )
    return said


def _file(error: BaseException) -> str | None:
    """Name the file that the innermost function of ours was about."""
    for frame in reversed(list(_frames(error))):
        if frame.f_globals.get("__name__", "").partition(".")[0] not in PACKAGES:
            continue
        local = frame.f_locals
        for name in (*_PLACES, *local):
            value = local.get(name)
            if isinstance(value, Path) or (name == "path" and isinstance(value, str)):
                return str(value)
    return None


def _frames(error: BaseException) -> Iterator[FrameType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next
