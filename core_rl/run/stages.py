"""Stages of a pipeline in order; one that was done with the same settings is not done again.

A stage's folder is named after a fingerprint of everything its output depends on: its settings, the
stages it reads and, where given, the source of the modules that make it.  A stage that was killed
finds its folder as it left it, so that it can go on there.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

from core_rl.hardware import is_main_process
from core_rl.locks import alone
from core_rl.run.run_folder import write_json

log = logging.getLogger(__name__)

DONE = "stage.json"


def fingerprint(*parts: Any, code: Sequence[ModuleType] = ()) -> str:
    """Digest settings: dataclasses, mappings, sequences, enums, paths and plain values.

    Args:
        parts: what an output depends on; the order counts, that of a mapping's keys does not.
        code: modules whose source text belongs to it.

    Returns:
        Twelve hexadecimal digits.
    """
    text = json.dumps([_plain(part) for part in parts], sort_keys=True)
    text += "".join(inspect.getsource(module) for module in code)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def checkpoint_digest(path: str, adapters: str | None = None) -> str:
    """Digest what identifies a checkpoint without reading its weights.

    A local folder is known by names, sizes and times of its files, a hub id by itself.
    """
    folders = [Path(one) for one in (path, adapters) if one is not None]
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir())]
    about = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return fingerprint(path, adapters, about)


def run_stage(
    name: str, root: Path, key: str, make: Callable[[Path], Mapping[str, float] | None]
) -> tuple[Path, dict[str, float]]:
    """Do a stage unless its output is there.

    Args:
        name: of the stage, for the log and its folder; a run that is making it is waited for.
        root: folder of all stages, e.g. `${paths.cache}/lever`.
        key: fingerprint of what the output depends on; see `fingerprint`.
        make: fills the folder and returns figures to keep; what a killed call left is still there.

    Returns:
        The stage's folder and its figures.
    """
    folder = root / f"{name}-{key}"
    done = folder / DONE
    root.mkdir(parents=True, exist_ok=True)
    # The processes of one run make a stage together: the main one has the lock.
    free = done.is_file() or not is_main_process()
    with nullcontext() if free else alone(folder, folder.with_name(f".{folder.name}.lock")):
        if done.is_file():
            log.info("stage %s: done before, %s", name, folder)
            return folder, _figures(done)
        log.info("stage %s: into %s", name, folder)
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        figures = dict(make(folder) or {})
        seconds = time.monotonic() - began
        write_json(done, {"seconds": seconds, "figures": figures})
        log.info("stage %s: %.0f s", name, seconds)
    return folder, _figures(done)


def _figures(done: Path) -> dict[str, float]:
    kept = json.loads(done.read_text(encoding="utf-8"))["figures"]
    return {name: float("nan") if value is None else value for name, value in kept.items()}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name
    return str(value) if isinstance(value, Path) else value
