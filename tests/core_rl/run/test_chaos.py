"""Kills at aimed and at random moments: the run that goes on ends like the uninterrupted one.

The runs are forks of one process, so that each kill costs a second.  `make chaos` does the
same with whole experiments.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from core_rl.run import callbacks, checkpoint_io, resume, run_folder
from core_rl.run.resume import has_resume_point
from core_rl.run.signals import REQUEUE, TerminatedError, terminable
from tests.core_rl.run.test_resume import samples, trained
from tests.limits import HUNG

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has torch")

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["lightning.pytorch", "pandas", "tests.core_rl.run.test_resume"])

SETUP = "reused"
# What is called while files are written: (owner, name of the function), and at which call.
AIMED: dict[str, tuple[Any, str, int]] = {
    "while a checkpoint is written": (checkpoint_io, "sync", 3),
    "before it takes its place": (resume, "keep", 2),
    "between two renames": (Path, "rename", 6),
    "at the next rename": (Path, "rename", 7),
    "while a policy is sealed": (callbacks, "seal", 4),
    "before it is put in place": (callbacks, "put_in_place", 5),
    "while the figures of the best are written": (callbacks, "write_json", 2),
    "while samples are written": (run_folder, "atomically", 4),
}


def forked(work: Callable[..., None], *args: Any) -> int:
    """Run a function in a fork of a process that has imported all; return its exit code.

    A fork of this process would hang where earlier tests have started threads.
    """
    process = FORKS.Process(target=coded, args=(work, *args))
    process.start()
    process.join(HUNG)
    if process.is_alive():
        process.kill()
    assert process.exitcode is not None
    return process.exitcode


def coded(work: Callable[..., None], *args: Any) -> None:
    """Call a function; SIGTERM ends it with the code that ends a command."""
    try:
        work(*args)
    except TerminatedError:
        os._exit(REQUEUE)


def logits(folder: Path) -> Path:
    return folder / "logits.pt"


def go(folder: Path) -> None:
    """Start the run, or go on with it."""
    with terminable():
        module, _ = trained(folder, SETUP, resumed=folder if has_resume_point(folder) else None)
    torch.save(module.policy.logits.detach(), logits(folder))


def killed_at(folder: Path, moment: str) -> None:
    """Die at a call of a function."""
    owner, name, call = AIMED[moment]
    original, calls = getattr(owner, name), 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, counted)
    go(folder)


def killed_after(folder: Path, seconds: float, number: signal.Signals) -> None:
    def strike() -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), number)

    threading.Thread(target=strike, daemon=True).start()
    go(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The uninterrupted run, and how long it took."""
    folder = tmp_path_factory.mktemp("whole")
    began = time.monotonic()
    assert forked(go, folder) == 0
    return folder, time.monotonic() - began


def same_end(folder: Path, whole: Path) -> None:
    assert forked(go, folder) == 0
    assert torch.equal(torch.load(logits(folder)), torch.load(logits(whole)))
    pd.testing.assert_frame_equal(samples(folder), samples(whole))
    kept, wanted = (one / "checkpoints" for one in (folder, whole))
    assert (kept / "best.json").read_text() == (wanted / "best.json").read_text()
    assert {path.name for path in kept.iterdir()} == {path.name for path in wanted.iterdir()}


@pytest.mark.parametrize("moment", list(AIMED))
def test_an_aimed_kill(moment: str, whole: tuple[Path, float], tmp_path: Path) -> None:
    assert forked(killed_at, tmp_path, moment) == -signal.SIGKILL
    same_end(tmp_path, whole[0])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("turn", range(2))
def test_kills_at_random_moments(
    number: signal.Signals, turn: int, whole: tuple[Path, float], tmp_path: Path
) -> None:
    """The same run is struck three times."""
    rng = random.Random(f"{number}{turn}")
    for _ in range(3):
        seconds = rng.random() * whole[1]
        code = forked(killed_after, tmp_path, seconds, number)
        assert code in (0, -signal.SIGKILL if number is signal.SIGKILL else REQUEUE)
    same_end(tmp_path, whole[0])
