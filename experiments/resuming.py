"""Which run `trainer.resume` means."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from core_rl.secrets import scrub

log = logging.getLogger(__name__)

RESUMED = "PEOPLE_FOCUS_RESUMED"  # what `trainer.resume` named when the command began
AUTO = "auto"
RUNNING = ".running"  # locked by the run that writes into a folder

_FOLDERS = ("*/*", "multirun/*/*/*")  # of runs, under `paths.output`
_POINTS = tuple(
    f"{seed}checkpoints/{point}"
    for seed in ("", "seed*/")
    for point in ("last.ckpt", "before.ckpt", "step-*/state.json")
)
# Settings that may differ between a run and the one that it continues: no result depends on them.
_FREE = (("trainer", "resume"), ("trainer", "progress"), ("preflight",))


def resumed(path: str, folder: Path, settings: str, output: Path) -> str | None:
    """Resolve `auto`, and `latest` before this run takes the link over.

    The environment keeps the answer for the further jobs of a batch and processes of a run.

    Args:
        path: as given.
        folder: of this run.
        settings: of this run, as its `config.yaml` will hold them.
        output: folder of all runs.

    Returns:
        A path; None if `auto` finds nothing to go on with.
    """
    found: dict[str, str | None] = json.loads(os.environ.get(RESUMED, "{}"))
    key = f"{AUTO} {folder}" if path == AUTO else path
    if key not in found:
        if path == AUTO:
            found[key] = newest_unfinished(output, settings)
        elif os.path.exists(path):
            found[key] = os.path.realpath(path)
        os.environ[RESUMED] = json.dumps(found)
    return found.get(key, path)


def newest_unfinished(output: Path, settings: str) -> str | None:
    """Find the newest run of the same settings that did not end, does not run, and has saved.

    Args:
        output: folder of all runs.
        settings: YAML.
    """
    wanted = _compared(scrub(settings))  # as it is in the files
    configs = [file for pattern in _FOLDERS for file in output.glob(f"{pattern}/config.yaml")]
    for file in sorted(configs, key=lambda one: one.stat().st_mtime, reverse=True):
        run = file.parent
        if (run / "metrics.json").exists() or not any(any(run.glob(one)) for one in _POINTS):
            continue
        if _compared(file.read_text(encoding="utf-8")) == wanted and not _is_running(run):
            log.info("trainer.resume=auto: going on with %s", run)
            return str(run.resolve())
    log.info("trainer.resume=auto: no unfinished run of these settings in %s: a new one", output)
    return None


def running(folder: Path) -> FileLock:
    """A lock that says that a run writes into its folder; the system frees it, whatever happens."""
    return FileLock(folder / RUNNING)


def _compared(text: str) -> Any:
    try:
        settings = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    if not isinstance(settings, dict):
        return None
    for *path, last in _FREE:
        node = settings
        for name in path:
            node = node.get(name, {})
        node.pop(last, None)
    return settings


def _is_running(run: Path) -> bool:
    lock = running(run)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
