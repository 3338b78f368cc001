"""The processes of a run begin together, share one folder and end together."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from core_rl.config import HardwareConfig
from core_rl.run.processes import started_outside
from tests.core_rl import processes_run
from tests.limits import HUNG
from tests.two_processes import together

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.slow


def command(mode: str, folder: Path) -> list[str]:
    return [sys.executable, processes_run.__file__, mode, str(folder)]


def run(mode: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(
        command(mode, folder), env=env, capture_output=True, text=True, timeout=HUNG
    )


def told(folder: Path) -> list[str]:
    return [(folder / f"rank-{rank}").read_text() for rank in (0, 1)]


def test_work_is_shared_out_and_gathered_in_order(tmp_path: Path) -> None:
    done = run("fine", tmp_path)
    assert done.returncode == 0, done.stderr
    assert told(tmp_path) == ["[0, 1, 4, 9, 16] 2"] * 2
    assert done.stderr.count("told once") == 1


def test_a_slurm_job_of_one_task_still_gets_its_processes(tmp_path: Path) -> None:
    """Lightning would count one process there and say nothing."""
    slurm = {f"SLURM_{name}": "0" for name in ("PROCID", "LOCALID", "NODEID")}
    done = run("fine", tmp_path, SLURM_NTASKS="1", SLURM_JOB_ID="1", **slurm)
    assert done.returncode == 0, done.stderr
    assert told(tmp_path) == ["[0, 1, 4, 9, 16] 2"] * 2


def test_torchruns_processes_take_the_first_ones_folder(tmp_path: Path) -> None:
    together(*command("fine", tmp_path)[1:])
    (shared,) = tmp_path.iterdir()
    assert told(shared) == ["[0, 1, 4, 9, 16] 2"] * 2


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("raise1", "a reward that fails"),
        ("kill1", "process 1 of the run ended by SIGKILL"),
        ("exit1", "process 1 of the run ended with code 7"),
    ],
)
def test_a_process_that_fails_ends_the_run(mode: str, says: str, tmp_path: Path) -> None:
    done = run(mode, tmp_path)
    assert done.returncode == 1
    assert says in done.stderr


def test_children_do_not_outlive_the_first_process(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command("kill0", tmp_path), env=env, stderr=subprocess.DEVNULL) as first:
        until = time.monotonic() + 60
        children: list[psutil.Process] = []
        while not children and time.monotonic() < until:
            time.sleep(0.2)
            try:
                children = psutil.Process(first.pid).children()
            except psutil.NoSuchProcess:
                break
        assert children
        assert first.wait(60) != 0
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


@pytest.mark.parametrize("name", ["WORLD_SIZE", "SLURM_NTASKS"])
def test_another_number_of_processes_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for taken in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_NTASKS"):
        monkeypatch.delenv(taken, raising=False)
    monkeypatch.setenv(name, "4")
    if name == "WORLD_SIZE":
        monkeypatch.setenv("RANK", "0")
    else:
        for slurm in ("PROCID", "LOCALID", "NODEID", "JOB_ID"):
            monkeypatch.setenv(f"SLURM_{slurm}", "0")
        monkeypatch.setenv("SLURM_NODELIST", "localhost")
    with pytest.raises(ValueError, match=f"8 processes, and {name}=4"):
        started_outside(HardwareConfig(accelerator="gpu", devices=8, strategy="ddp"))
