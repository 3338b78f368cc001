"""Run an experiment as a user types it: a process of its own, real files.

Of a small run nine tenths are the import of torch and lightning.  So `start` and `run` fork their
processes off one that has imported both and done nothing else; `typed` is the command line itself,
by which each pipeline runs once.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.limits import HUNG

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "experiments.run")

FORKS = multiprocessing.get_context("forkserver")
OPENED = ("lightning.pytorch", "transformers", "pandas", "sklearn.ensemble", "stable_baselines3")
FORKS.set_forkserver_preload(list(OPENED))


@dataclass(frozen=True)
class Said:
    """What a process wrote."""

    out: str
    err: str


def typed(*overrides: str, output: Path, code: int = 0) -> Path:
    """Run `python -m experiments.run`; return the run's folder."""
    done = subprocess.run(
        [*COMMAND, *overrides, f"paths.output={output}"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HUNG,
    )
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return latest(output)


def start(*overrides: str, output: Path, code: int = 0) -> Said:
    """Run an experiment whose folders lie in `output` to its end; it must end with `code`."""
    with TemporaryDirectory() as folder:
        arguments = [*overrides, f"paths.output={output}"]
        process = FORKS.Process(target=_answer, args=(arguments, folder))
        process.start()
        process.join(HUNG)
        ended = process.exitcode
        process.kill()
        said = Said(*(Path(folder, name).read_text() for name in ("out", "err")))
    assert ended == code, said.out[-3000:] + said.err[-3000:]
    return said


def run(*overrides: str, output: Path, code: int = 0) -> Path:
    """As `start`; return the run's folder."""
    start(*overrides, output=output, code=code)
    return latest(output)


def latest(output: Path) -> Path:
    """The folder of the run that ended last."""
    return (output / "latest").resolve()


def metrics(folder: Path) -> dict[str, float]:
    """What a run measured, by name."""
    values: dict[str, float] = json.loads((folder / "metrics.json").read_text())
    return values


def _answer(arguments: list[str], folder: str) -> None:
    """Be the command line, in a process that was just forked."""
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT), stream)
    os.chdir(ROOT)
    sys.argv = ["experiments/run.py", *arguments]
    from experiments.run import main

    main()
