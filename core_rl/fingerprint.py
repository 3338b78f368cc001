"""Digests that name what an output depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path


def fingerprint(*parts: object) -> str:
    """Digest settings: dataclasses, mappings, sequences, enums, paths and plain values.

    Args:
        parts: what an output depends on, among it the version constants of the code that makes it
            (`tests/test_versions.py` holds them to the code).  The order counts, that of a
            mapping's keys does not.

    Returns:
        Twelve hexadecimal digits.
    """
    text = json.dumps([_plain(part) for part in parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def checkpoint_digest(path: str, adapters: str | None = None) -> str:
    """Digest what identifies a checkpoint without reading its weights.

    A local folder is known by names, sizes and times of its files, a hub id by itself.
    """
    folders = [Path(one) for one in (path, adapters) if one is not None]
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir())]
    about = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return fingerprint(path, adapters, about)


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name
    return str(value) if isinstance(value, Path) else value
