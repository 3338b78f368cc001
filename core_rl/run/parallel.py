"""Jobs of one run, in turn or side by side in processes of their own."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


class InTurn(Executor):
    """Do each job at once, in this process."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def executor(workers: int) -> Executor:
    """Make what runs jobs: `workers` fresh processes side by side, or this one for 1."""
    if workers <= 1:
        return InTurn()
    # Spawned, because torch's threads do not survive a fork; a fresh one each, because what a job
    # leaves behind (caches, compiled kernels) would grow.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1)


def logged_into(folder: Path, fn: Callable[..., T], *args: Any) -> T:
    """Do a job of another process: what it logs goes into `folder/train.log`."""
    folder.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=folder / "train.log",
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    return fn(*args)


class Progress:
    """Say how many of a number of jobs are done and how long the rest may take."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self._began = time.monotonic()

    def one_more(self, name: str) -> None:
        """Note that a job is done."""
        self.done += 1
        left = (time.monotonic() - self._began) / self.done * (self.total - self.done)
        log.info("%s done: %d of %d, about %.0f min left", name, self.done, self.total, left / 60)
