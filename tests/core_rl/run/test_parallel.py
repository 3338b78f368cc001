"""Jobs in turn and in processes of their own."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from core_rl.run.parallel import Job, LostJobError, each
from core_rl.run.signals import TerminatedError, asked_to_end, saving_first, terminable

log = logging.getLogger(__name__)


def squared(number: int) -> tuple[int, int]:
    log.info("squaring %d", number)
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number * number, os.getpid()


def jobs(folder: Path, *numbers: int) -> list[Job[tuple[int, int]]]:
    return [Job(f"job {n}", folder / f"job{n}", squared, (n,)) for n in numbers]


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_jobs(
    workers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "core_rl.run.parallel"):
        done = each(jobs(tmp_path, 3, 2, 1), workers)
    assert [(name, result[0]) for name, result in done.items()] == [
        ("job 3", 9),
        ("job 2", 4),
        ("job 1", 1),
    ]
    ended = [record.getMessage() for record in caplog.records if " done: " in record.getMessage()]
    assert ["1 of 3" in ended[0], "2 of 3" in ended[1], "3 of 3" in ended[2]] == [True] * 3
    processes = {process for _, process in done.values()}
    if workers == 1:
        assert processes == {os.getpid()}
        assert not list(tmp_path.iterdir())
    else:
        assert len(processes) == 3 and os.getpid() not in processes
        assert "squaring 2" in (tmp_path / "job2" / "train.log").read_text()


def test_one_job_needs_no_process_of_its_own(tmp_path: Path) -> None:
    assert each(jobs(tmp_path, 3), workers=4) == {"job 3": (9, os.getpid())}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_may_be_followed_by_others(workers: int, tmp_path: Path) -> None:
    def next_one(name: str, result: tuple[int, int]) -> list[Job[tuple[int, int]]]:
        return jobs(tmp_path, result[0] + 1) if result[0] < 10 else []

    done = each(jobs(tmp_path, 2, 4), workers, next_one, total=3)
    assert {name: result[0] for name, result in done.items()} == {
        "job 2": 4,
        "job 4": 16,
        "job 5": 25,
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_the_error_of_a_job_is_raised(workers: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="-1 is negative"):
        each(jobs(tmp_path, 2, -1), workers)


def dies(folder: Path, how: str) -> None:
    if how == "exits":
        sys.exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


def saves(folder: Path) -> None:
    """As a training does: SIGTERM is looked for between two steps."""
    folder.mkdir(parents=True, exist_ok=True)
    with saving_first():
        (folder / "began").touch()
        while not asked_to_end():
            time.sleep(0.01)
        (folder / "saved").touch()
        raise TerminatedError("saved")


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ("killed", LostJobError, "process of lost ended by SIGKILL.*kept is in .*lost; .*auto"),
        ("exits", RuntimeError, r"lost called sys\.exit\(0\)"),
    ],
)
def test_a_process_without_a_result_is_named(
    how: str, error: type[Exception], says: str, tmp_path: Path
) -> None:
    lost = Job("lost", tmp_path / "lost", dies, (tmp_path, how))
    with pytest.raises(error, match=says):
        each([lost, *jobs(tmp_path, 2)], workers=2)  # type: ignore[list-item]


def test_sigterm_lets_every_process_save(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    work = [Job(folder.name, folder, saves, (folder,)) for folder in folders]

    def ask() -> None:
        while not all((folder / "began").exists() for folder in folders):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=ask).start()
    with pytest.raises(TerminatedError), terminable():
        each(work, workers=2)
    assert all((folder / "saved").exists() for folder in folders)
