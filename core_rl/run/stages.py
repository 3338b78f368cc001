"""Stages of a pipeline; one that was done with the same settings is not repeated.

A stage's folder is named after a fingerprint of everything its output depends on: its settings, the
stages it reads and the versions of the code that makes it.  A stage that was killed
finds its folder unchanged and can continue there.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

from core_rl.files import alone, write_json
from core_rl.hardware import is_main_process

log = logging.getLogger(__name__)

DONE = "stage.json"


def run_stage(
    name: str, root: Path, key: str, make: Callable[[Path], Mapping[str, float] | None]
) -> tuple[Path, dict[str, float]]:
    """Run a stage unless its output exists.

    Args:
        name: of the stage, for the log and its folder.  If another run is making it, this waits.
        root: folder of all stages, e.g. `${paths.cache}/lever`.
        key: fingerprint of what the output depends on; see `fingerprint`.
        make: fills the folder, which may hold files of a killed call, and returns figures to keep.

    Returns:
        The stage's folder and its figures.
    """
    folder = root / f"{name}-{key}"
    done = folder / DONE
    root.mkdir(parents=True, exist_ok=True)
    # All processes of a run make a stage together; only the main one takes the lock.
    free = done.is_file() or not is_main_process()
    with nullcontext() if free else alone(folder, folder.with_name(f".{folder.name}.lock")):
        figures = _figures(done)
        if figures is not None:
            log.info("stage %s: done before, %s", name, folder)
            return folder, figures
        log.info("stage %s: into %s", name, folder)
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        figures = dict(make(folder) or {})
        seconds = time.monotonic() - began
        write_json(done, {"seconds": seconds, "figures": figures})
        log.info("stage %s: %.0f s", name, seconds)
    return folder, figures


def _figures(done: Path) -> dict[str, float] | None:
    """What a finished stage kept; None if it is not finished, or, with a warning, damaged."""
    if not done.is_file():
        return None
    try:
        kept = json.loads(done.read_text(encoding="utf-8"))["figures"]
        return {name: float("nan") if value is None else value for name, value in kept.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning("%s is damaged (%s): the stage is run again", done, error)
        return None
