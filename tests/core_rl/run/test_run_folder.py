"""What a run leaves behind, also when it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from core_rl.run import run_folder as artifacts
from core_rl.run.run_folder import SampleWriter, finish_run, link_latest, start_run


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    folder = tmp_path / "2026-01-01" / "00-00-00"
    started = start_run(folder, "task: x\n")
    finish_run(folder, {"after/accuracy": 0.5, "seconds": 3.0}, 7, started)
    return folder


def test_a_finished_run_says_what_ran_and_how(finished: Path) -> None:
    assert (finished / "config.yaml").read_text() == "task: x\n"
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["after/accuracy"] == 0.5
    assert metrics["seconds"] == 3.0  # what the task measured wins
    assert metrics["peak_rss_gib"] > 0.01
    assert metrics["cpu_seconds"] >= 0
    assert all(isinstance(value, float) for value in metrics.values())
    run = json.loads((finished / "run.json").read_text())
    assert run.keys() == {
        "seed",
        "revision",
        "versions",
        "hardware",
        "wall_seconds",
        "cpu_seconds",
        "started",
    }
    assert run["seed"] == 7
    assert run["versions"].keys() == {"python", *artifacts.PACKAGES}
    assert run["hardware"]["cores"] == os.cpu_count()


def test_latest_names_the_newest_run(tmp_path: Path) -> None:
    for name in ("one", "two", "two"):
        (tmp_path / name).mkdir(exist_ok=True)
        link_latest(tmp_path, tmp_path / name)
        assert (tmp_path / "latest").resolve() == tmp_path / name
    assert not os.path.isabs(os.readlink(tmp_path / "latest"))  # the outputs may be moved
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "one", "two"]


def test_latest_in_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    link_latest(tmp_path / "deep" / "root", tmp_path / "one")
    assert (tmp_path / "deep" / "root" / "latest").resolve() == tmp_path / "one"


def test_runs_that_start_at_once_each_link_themselves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Threads stand for runs in containers, which share a disk and the numbers of processes."""
    folders = [tmp_path / f"run-{number}" for number in range(8)]
    for folder in folders:
        folder.mkdir()

    def link_often(folder: Path) -> None:
        for _ in range(100):
            link_latest(tmp_path, folder)
            assert (tmp_path / "latest").resolve() in folders

    with ThreadPoolExecutor(len(folders)) as runs:
        list(runs.map(link_often, folders))
    assert not caplog.records
    assert sorted(tmp_path.iterdir()) == sorted([*folders, tmp_path / "latest"])


def test_a_run_that_cannot_be_linked_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest" / "kept").touch()
    link_latest(tmp_path, tmp_path / "one")
    assert "latest does not name this run" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest"]
    assert (tmp_path / "latest" / "kept").exists()

    def no_links(path: Path, target: str) -> None:
        raise PermissionError("no links here")

    caplog.clear()
    monkeypatch.setattr(Path, "symlink_to", no_links)
    link_latest(tmp_path, tmp_path / "one")
    assert "no links here" in caplog.text


def test_the_revision_names_local_changes_and_leaves_the_index_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        person = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.check_output(["git", *person, *arguments], cwd=tmp_path, text=True)

    monkeypatch.setattr(artifacts, "__file__", str(tmp_path / "module.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert artifacts.git_revision() == "unknown"
    git("init", "-q")
    (tmp_path / "module.py").write_text("1\n")
    git("add", ".")
    git("commit", "-qm", "One")
    revision = git("rev-parse", "--short=12", "HEAD").strip()
    os.utime(tmp_path / "module.py", (0, 0))  # git would note the new time in its index
    index = (tmp_path / ".git" / "index").read_bytes()
    (tmp_path / "untracked").touch()
    assert artifacts.git_revision() == revision
    (tmp_path / "module.py").write_text("2\n")
    assert artifacts.git_revision() == f"{revision}-dirty"
    assert (tmp_path / ".git" / "index").read_bytes() == index


def test_cpu_time_only_grows() -> None:
    before = artifacts.cpu_seconds()
    sum(i * i for i in range(200_000))
    assert artifacts.cpu_seconds() >= before


# -- samples -------------------------------------------------------------------------------------


def rows(start: int, count: int) -> list[dict[str, object]]:
    return [{"step": i, "text": f"sample {i}"} for i in range(start, start + count)]


def test_parts_are_one_table(tmp_path: Path) -> None:
    writer = SampleWriter(tmp_path, every=4)
    for start in range(0, 10, 2):
        writer.add(rows(start, 2))
    written = pd.read_parquet(tmp_path / "samples.parquet")
    assert list(written["step"]) == list(range(8))  # full parts are there at once
    writer.flush()
    writer.flush()
    assert list(pd.read_parquet(tmp_path / "samples.parquet")["step"]) == list(range(10))


def test_a_resumed_run_adds_parts(tmp_path: Path) -> None:
    for start in (0, 3):
        writer = SampleWriter(tmp_path)
        writer.add(rows(start, 3))
        writer.flush()
    assert list(pd.read_parquet(tmp_path / "samples.parquet")["step"]) == list(range(6))


def test_later_parts_may_bring_new_columns(tmp_path: Path) -> None:
    writer = SampleWriter(tmp_path, every=1)
    writer.add([{"step": 0, "text": "a"}])
    writer.add([{"step": 1, "text": "b", "reward/format": 1.0}])
    table = pd.read_parquet(tmp_path / "samples.parquet")
    assert list(table["step"]) == [0, 1]


WRITES_UNTIL_KILLED = """
import sys, itertools
from pathlib import Path
from core_rl.run.run_folder import SampleWriter
writer = SampleWriter(Path(sys.argv[1]), every=50)
for step in itertools.count():
    writer.add([{"step": step, "text": "x" * 1000}])
"""


def test_a_killed_run_loses_no_full_part(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", WRITES_UNTIL_KILLED, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    folder = tmp_path / "samples.parquet"
    while len(list(folder.glob("part-*.parquet"))) < 3 and child.poll() is None:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    steps = list(pd.read_parquet(folder)["step"])
    assert len(steps) >= 150 and len(steps) % 50 == 0
    assert steps == list(range(len(steps)))


def test_a_part_that_was_cut_while_written_is_passed_over(tmp_path: Path) -> None:
    writer = SampleWriter(tmp_path, every=2)
    writer.add(rows(0, 2))
    folder = tmp_path / "samples.parquet"
    whole = (folder / "part-00000.parquet").read_bytes()
    (folder / ".part-00001.parquet.123").write_bytes(whole[: len(whole) // 2])
    assert list(pd.read_parquet(folder)["step"]) == [0, 1]
    again = SampleWriter(tmp_path, every=2)
    again.add(rows(2, 2))
    assert list(pd.read_parquet(folder)["step"]) == [0, 1, 2, 3]
