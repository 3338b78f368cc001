"""What `--help` and the errors offer: every option but the parts that options share."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.usage import CONF, answered, is_offered

PARTS = sorted(path.stem for path in CONF.glob("*/_*.yaml"))
OPTIONS = sorted(path.stem for path in CONF.glob("*/[!_]*.yaml"))


def test_there_are_parts_to_leave_out() -> None:
    assert {"_lever", "_omni", "_sa2va"} <= set(PARTS)


@pytest.mark.parametrize(
    ("name", "offered"),
    [("lever", True), ("lever_sft", True), ("_lever", False), ("exp/_lever", False)],
)
def test_a_leading_underscore_marks_a_part(name: str, offered: bool) -> None:
    assert is_offered(name) is offered


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_option_and_no_part(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert answered([flag, "+exp=lever"]) == ["--cfg", "job", "+exp=lever"]
    words = set(capsys.readouterr().out.replace(",", " ").split())
    assert set(OPTIONS) <= words
    assert not words & set(PARTS)


def test_every_experiment_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    answered(["--help"])
    listed = capsys.readouterr().out.partition("Groups")[0].splitlines()
    for path in (CONF / "exp").glob("[!_]*.yaml"):
        (line,) = [line for line in listed if line.split()[:1] == [path.stem]]
        assert len(line.split()) > 3, line


def test_help_shows_the_options_of_a_folder_of_the_users(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "mine.yaml").write_text("# @package _global_\n# My own.\nseed: 1\n")
    (tmp_path / "colour").mkdir()
    (tmp_path / "colour" / "red.yaml").write_text("seed: 1\n")
    answered(["--config-dir", str(tmp_path), "--help"])
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["mine", "My", "own."] in said
    assert ["colour", "red"] in said


@pytest.mark.parametrize("arguments", [[], ["+exp=lever", "seed=1"], ["-m", "seed=1,2"]])
def test_all_else_is_left_to_hydra(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert answered(arguments) == arguments
    assert capsys.readouterr().out == ""
