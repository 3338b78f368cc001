"""Independent jobs of one run (seeds, controls), in turn or several at a time."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Generic, TypeVar

from core_rl.run.signals import TerminatedError, terminable
from core_rl.secrets import scrub_logs

log = logging.getLogger(__name__)

T = TypeVar("T")


class LostJobError(ValueError):
    """The process of a job ended without a result; no mistake of this program."""


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
        LostJobError: the process of a job was killed.
        TerminatedError: SIGTERM; the jobs under way have saved.
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
    running: dict[Connection, tuple[Job[T], SpawnProcess]] = {}
    try:
        while queue or running:
            while queue and len(running) < workers:
                job = queue.popleft()
                here, there = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(there, job), name=job.name)
                process.start()
                there.close()  # so that the end of the process shows here
                running[here] = job, process
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                job, process = running.pop(ready)
                yield job.name, _result(ready, job, process)
    except TerminatedError:
        for _, process in running.values():
            process.terminate()  # each saves first
        raise
    finally:
        for here, (_, process) in running.items():
            with suppress(EOFError):
                here.recv()
            process.join()


def _result(here: Connection, job: Job[T], process: SpawnProcess) -> T:
    """Return what a job sent, or raise its error."""
    try:
        ended_well, outcome = here.recv()
    except EOFError:
        process.join()
        code = process.exitcode or 0
        how = f"with code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
        hint = ": was the memory too small?" if code == -signal.SIGKILL else ""
        raise LostJobError(
            f"the process of {job.name} ended {how}{hint}  What it kept is in {job.folder}; the "
            "same command with trainer.resume=auto goes on from there"
        ) from None
    process.join()
    if not ended_well:
        raise outcome
    result: T = outcome
    return result


def _work(there: Connection, job: Job[T]) -> None:
    """Run a job in a new process, and send its result or its error."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    outcome: tuple[bool, Any]
    with terminable():
        try:
            outcome = True, _logged(job)
        except SystemExit as left:
            outcome = False, RuntimeError(f"{job.name} called sys.exit({left.code!r})")
        except BaseException as error:
            error.add_note(traceback.format_exc())
            outcome = False, error
    try:
        there.send(outcome)
    except Exception as error:  # what cannot be pickled
        there.send((False, RuntimeError(f"{job.name}: {outcome[1]!r} ({error})")))


def _end_with_parent() -> None:
    """End this process where its parent was killed: the next run writes into the same folders."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _logged(job: Job[T]) -> T:
    """Run a job in a new process; its log goes into `train.log` of its folder."""
    job.folder.mkdir(parents=True, exist_ok=True)
    scrub_logs()
    logging.basicConfig(
        filename=job.folder / "train.log",
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    return job.work(*job.args)
