"""Independent jobs of one run (seeds, controls), in turn or several at a time."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Job(Generic[T]):
    """A call whose result is wanted.

    Attributes:
        name: unique, for the log and the results.
        folder: receives `train.log` if the job runs in a process of its own.
        work: the function; picklable, like `args`, for a process of its own.
        args: its arguments.
    """

    name: str
    folder: Path
    work: Callable[..., T]
    args: tuple[Any, ...]


def each(
    jobs: Sequence[Job[T]],
    workers: int,
    followed_by: Callable[[str, T], Sequence[Job[T]]] = lambda name, result: (),
    total: int | None = None,
) -> dict[str, T]:
    """Run jobs and wait for all of them.

    Args:
        jobs: what to run.
        workers: jobs at a time; 1 runs them in this process, more in a new process each.
        followed_by: further jobs to add when the job of a name has ended with a result.
        total: jobs including those to be added, for the log; None = those given.

    Returns:
        The results by name, in the order in which the jobs were queued.

    Raises:
        Exception: of the first job that fails; those under way are waited for.
    """
    total = total or len(jobs)
    queue, names = deque(jobs), [job.name for job in jobs]
    results: dict[str, T] = {}
    began = time.monotonic()
    for name, result in _run(queue, min(workers, total)):
        results[name] = result
        added = followed_by(name, result)
        queue.extend(added)
        names += [job.name for job in added]
        done = len(results)
        left = (time.monotonic() - began) / done * (total - done)
        log.info("%s done: %d of %d, about %.0f min left", name, done, total, left / 60)
    return {name: results[name] for name in names}


def _run(queue: deque[Job[T]], workers: int) -> Iterator[tuple[str, T]]:
    """Yield each job's name and result when it ends; the caller may add to the queue."""
    if workers <= 1:
        while queue:
            job = queue.popleft()
            yield job.name, job.work(*job.args)
        return
    # Spawned, because torch's threads do not survive a fork.  One process for each job, because
    # caches and compiled kernels that a job leaves behind would add up.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as pool:
        running: dict[Future[T], str] = {}
        while queue or running:
            while queue:
                job = queue.popleft()
                running[pool.submit(_logged, job)] = job.name
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()


def _logged(job: Job[T]) -> T:
    """Run a job in a new process; its log goes into `train.log` of its folder."""
    job.folder.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=job.folder / "train.log",
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    return job.work(*job.args)
