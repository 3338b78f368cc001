"""`trainer.resume=auto`: the newest unfinished run of the same settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from experiments import resuming
from experiments.resuming import newest_unfinished, resumed, running

SETTINGS = "seed: 0\ntrainer:\n  lr: 0.1\n  resume: {resume}\n  progress: {progress}\n"
MINE = SETTINGS.format(resume="auto", progress="true")


def run(output: Path, name: str, at: float, text: str = "", point: str = "last.ckpt") -> Path:
    folder = output / name
    (folder / "checkpoints" / point).parent.mkdir(parents=True)
    (folder / "checkpoints" / point).touch()
    (folder / "config.yaml").write_text(text or SETTINGS.format(resume="null", progress="false"))
    os.utime(folder / "config.yaml", (at, at))
    return folder


def test_the_newest_that_did_not_end_is_taken(tmp_path: Path) -> None:
    run(tmp_path, "day/1", 1.0)
    wanted = run(tmp_path, "day/2", 2.0)
    (run(tmp_path, "day/3", 3.0) / "metrics.json").touch()  # it ended
    (run(tmp_path, "day/4", 4.0) / "checkpoints" / "last.ckpt").unlink()  # it saved nothing
    run(tmp_path, "day/5", 5.0, MINE.replace("lr: 0.1", "lr: 0.2"))  # other settings
    run(tmp_path, "day/6", 6.0, "seed: [")
    run(tmp_path, "day/7", 7.0, "3")
    assert newest_unfinished(tmp_path, MINE) == str(wanted)
    with running(wanted):
        assert newest_unfinished(tmp_path, MINE) == str(tmp_path / "day" / "1")


@pytest.mark.parametrize("point", ["before.ckpt", "step-00000128/state.json"])
@pytest.mark.parametrize("name", ["day/1", "multirun/day/time/0"])
def test_every_kind_of_checkpoint_and_folder_counts(name: str, point: str, tmp_path: Path) -> None:
    assert newest_unfinished(tmp_path, MINE) is None
    folder = run(tmp_path, name, 1.0, point=point)
    assert newest_unfinished(tmp_path, MINE) == str(folder)


def test_a_seed_of_several_counts(tmp_path: Path) -> None:
    folder = run(tmp_path, "day/1", 1.0)
    (folder / "checkpoints").rename(folder / "seed1")
    (folder / "seed1" / "checkpoints").mkdir()
    (folder / "seed1" / "last.ckpt").rename(folder / "seed1" / "checkpoints" / "last.ckpt")
    assert newest_unfinished(tmp_path, MINE) == str(folder)


def test_further_processes_get_the_answer_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(resuming.RESUMED, raising=False)
    folder = run(tmp_path, "day/1", 1.0)
    new = tmp_path / "day" / "2"
    assert resumed("auto", new, MINE, tmp_path) == str(folder)
    (folder / "metrics.json").touch()
    assert resumed("auto", new, MINE, tmp_path) == str(folder)
    assert resumed("auto", tmp_path / "day" / "3", MINE, tmp_path) is None  # another job
    assert resumed("no/such", new, MINE, tmp_path) == "no/such"
