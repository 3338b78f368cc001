"""Folders that are written whole or not at all, and whose files can be checked later.

A folder is filled under a hidden name, sealed with the sizes and checksums of its files, and then
renamed.  Whatever was killed, power included, the folder is the new one, or the old one, or its
hidden copy is whole and `recover` puts it back.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from pathlib import Path

from core_rl.files import write_json

SEAL = "whole.json"  # name -> [bytes, CRC-32] of every file
_CHUNK = 2**22


def seal(folder: Path) -> None:
    """Note sizes and checksums of all files, once they are on the disk."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    noted = {}
    for path in files:
        sync(path)
        noted[path.relative_to(folder).as_posix()] = [path.stat().st_size, checksum(path)]
    write_json(folder / SEAL, noted)


def damage(folder: Path) -> str | None:
    """Say what is wrong with a sealed folder, in a few words; None if it is whole."""
    try:
        noted = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        for name, (size, crc) in noted.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} bytes instead of {size}"
            if checksum(path) != crc:
                return f"{name} has another checksum than when it was written"
    except FileNotFoundError:
        return f"{SEAL} is missing: it was not written to its end"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return f"{SEAL} cannot be read ({error})"
    return None


def is_whole(folder: Path) -> bool:
    """Whether a folder was sealed and has not changed since."""
    return damage(folder) is None


def change(folder: Path) -> str | None:
    """As `damage`; nothing is known of a folder without a seal, of others or earlier versions."""
    return damage(folder) if (folder / SEAL).exists() else None


def check_whole(folder: Path, field: str) -> None:
    """Raise ValueError if a folder was sealed and has changed."""
    wrong = change(folder)
    if wrong is not None:
        raise ValueError(
            f"{field}={folder}: damaged: {wrong}; name another checkpoint, or delete {SEAL} there "
            "if the change is meant"
        )


def hidden(folder: Path) -> Path:
    """Name under which the new folder is filled."""
    return folder.with_name(f".{folder.name}")


def put_in_place(new: Path, folder: Path) -> None:
    """Let a sealed folder take the place of another, or of none."""
    old = _old(folder)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path) -> None:
    """Put back a folder whose replacement was killed half-way, and remove what else was left."""
    left = (hidden(folder), _old(folder))
    for copy in left:
        if not folder.exists() and copy.is_dir() and is_whole(copy):
            copy.rename(folder)
        shutil.rmtree(copy, ignore_errors=True)


def checksum(path: Path) -> int:
    """CRC-32 of a file: it finds every flipped byte."""
    crc = 0
    with path.open("rb") as stream:
        while part := stream.read(_CHUNK):
            crc = zlib.crc32(part, crc)
    return crc


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk, where the system can tell."""
    try:
        number = os.open(path, os.O_RDONLY)
    except OSError:
        return  # folders cannot be opened everywhere
    try:
        os.fsync(number)
    except OSError:
        pass  # some network file systems have no such call for folders
    finally:
        os.close(number)


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")
