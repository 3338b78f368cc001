"""The folder of a run: what was run, how it went, and the candidates it judged.

`config.yaml`, `metrics.json` (flat, name -> number), `run.json` (versions, seed, revision,
hardware, time), `train.log`, `samples.parquet` (a folder of parts, so that a killed run loses
nothing).  Every file is written under another name and then moved, so that readers see whole files
only.
"""

from __future__ import annotations

import contextlib
import html
import logging
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from core_rl.files import atomically, own_name_beside, write_json, write_text
from core_rl.secrets import scrub, scrub_file

log = logging.getLogger(__name__)

PACKAGES = ("torch", "lightning", "transformers", "hydra-core", "stable-baselines3", "numpy", "av")


@dataclass(frozen=True)
class Started:
    """Clocks at the start of a run, in seconds."""

    wall: float
    cpu: float


def start_run(folder: Path, config_yaml: str) -> Started:
    """Open a run folder: the resolved configuration, and `latest` beside it pointing here."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", config_yaml)
    # Hydra has written the same settings, as they were given.
    for file in (*folder.glob(".hydra/*.yaml"), *folder.parent.glob("multirun.yaml")):
        scrub_file(file)
    return Started(time.time(), cpu_seconds())


def finish_run(folder: Path, metrics: Mapping[str, float], seed: int, started: Started) -> None:
    """Write `metrics.json` and `run.json`."""
    wall, cpu = time.time() - started.wall, cpu_seconds() - started.cpu
    known = {"seconds": wall, "cpu_seconds": cpu, "peak_rss_gib": peak_rss_gib()}
    write_json(folder / "metrics.json", {**known, **metrics})
    write_json(
        folder / "run.json",
        {
            "seed": seed,
            "revision": git_revision(),
            "versions": {"python": platform.python_version(), **package_versions()},
            "hardware": hardware(),
            "wall_seconds": wall,
            "cpu_seconds": cpu,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(started.wall)),
        },
    )


def add_to_reports(folder: Path, sentence: str) -> None:
    """Put a sentence under `report.txt` and on top of `report.html`, where a run has them."""
    text, page = folder / "report.txt", folder / "report.html"
    if text.exists():
        write_text(text, f"{text.read_text(encoding='utf-8')}\n{sentence}\n")
    if page.exists():
        note = f'<body>\n<p class="note">{html.escape(sentence)}</p>'
        write_text(page, page.read_text(encoding="utf-8").replace("<body>", note, 1))


def link_latest(root: Path, folder: Path) -> None:
    """Point `<root>/latest` at the newest run folder; a warning where that is not possible.

    Without the link nothing of the run is lost.
    """
    link = root / "latest"
    beside = own_name_beside(link)
    try:
        root.mkdir(parents=True, exist_ok=True)
        beside.symlink_to(os.path.relpath(folder, root))
        beside.replace(link)
    except OSError as error:  # no links on this file system, or a folder of that name
        log.warning("%s does not name this run, which is in %s: %s", link, folder, error)
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def cpu_seconds() -> float:
    """Processor time of this process and its ended children, in seconds."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def peak_rss_gib(workers: int = 0) -> float:
    """Largest resident memory of this process, in GiB, with that many children of the largest size.

    An upper bound for children that run side by side: not all peak at once.
    """
    import resource

    # macOS counts bytes where Linux counts KiB.
    unit = 1 if platform.system() == "Darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return (own + workers * child) * unit / 2**30


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide a result."""
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = "absent"
    return installed


def git_revision() -> str:
    """Revision of the checkout this file is in, with `-dirty` after local changes."""
    try:
        revision = _git("describe", "--always", "--abbrev=12")
        # Not `describe --dirty`, which locks the index: the user's own git command fails meanwhile,
        # and all later ones if the time limit ends the process that holds the lock.
        changes = _git("--no-optional-locks", "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return revision + ("-dirty" if changes else "") if revision else "unknown"


def _git(*arguments: str) -> str:
    """What git prints about the checkout this file is in; empty after an error."""
    answer = subprocess.run(
        ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
    )
    return answer.stdout.strip()


def hardware() -> dict[str, Any]:
    """The machine in a few words."""
    import torch

    described: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "torch_threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        described["gpus"] = [
            torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())
        ]
    return described


class SampleWriter:
    """Collect judged candidates and write them as parts of `samples.parquet`.

    Args:
        folder: of the run; parts of an earlier, resumed run are kept.
        every: rows a part.
        rank: of the process; each writes parts of its own.
    """

    def __init__(self, folder: Path, every: int = 512, rank: int = 0) -> None:
        self.folder = folder / "samples.parquet"
        self.prefix = f"part-{rank}-" if rank else "part-"
        self.every = every
        self._rows: list[dict[str, Any]] = []
        self._part = self._next()

    def take_over(self, earlier: Path) -> None:
        """Copy the parts of an earlier run, the folder `earlier`, unless this one has some."""
        parts = sorted((earlier / "samples.parquet").glob(f"{self.prefix}?????.parquet"))
        if self._part or not parts:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for part in parts:
            shutil.copyfile(part, self.folder / part.name)
        self._part = self._next()

    def keep_until(self, step: int) -> None:
        """Remove rows of later steps: a killed run may have written some that are made again."""
        import pandas as pd

        for part in sorted(self.folder.glob(f"{self.prefix}?????.parquet")):
            rows = pd.read_parquet(part)
            kept = rows[rows["step"] <= step]
            if len(kept) == len(rows):
                continue
            if kept.empty:
                part.unlink()
                continue
            with atomically(part) as beside:
                kept.to_parquet(beside, index=False)

    def _next(self) -> int:
        names = [path.stem for path in self.folder.glob(f"{self.prefix}?????.parquet")]
        return max((int(name.rpartition("-")[2]) + 1 for name in names), default=0)

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows; a full part is written at once."""
        self._rows.extend(
            {name: scrub(one) if isinstance(one, str) else one for name, one in row.items()}
            for row in rows
        )
        if len(self._rows) >= self.every:
            self.flush()

    def flush(self) -> None:
        """Write what is pending."""
        if not self._rows:
            return
        import pandas as pd

        # Readers of the folder ignore the hidden file that it is written to first.
        with atomically(self.folder / f"{self.prefix}{self._part:05d}.parquet") as beside:
            pd.DataFrame(self._rows).to_parquet(beside, index=False)
        self._rows, self._part = [], self._part + 1
