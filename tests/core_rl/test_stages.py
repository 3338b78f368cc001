from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest

from core_rl import health, stages
from core_rl.stages import fingerprint, run_stage


class Kind(Enum):
    one = 1
    two = 2


@dataclass
class Settings:
    lr: float = 0.1
    kind: Kind = Kind.one


def test_a_fingerprint_follows_its_parts_and_nothing_else() -> None:
    same = fingerprint(Settings(), {"b": 1, "a": Path("x")})
    assert fingerprint(Settings(), {"a": Path("x"), "b": 1}) == same
    others = [
        fingerprint(Settings(lr=0.2), {"b": 1, "a": Path("x")}),
        fingerprint(Settings(kind=Kind.two), {"b": 1, "a": Path("x")}),
        fingerprint({"b": 1, "a": Path("x")}, Settings()),
        fingerprint(Settings(), {"b": 1, "a": Path("x")}, code=[stages]),
    ]
    assert len({same, *others}) == 5
    assert fingerprint(code=[stages]) != fingerprint(code=[health])


def test_a_stage_is_done_once_and_its_figures_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[Path] = []

    def make(folder: Path) -> dict[str, float]:
        calls.append(folder)
        return {"gain": 0.5, "unknown": math.nan}

    first, figures = run_stage("sft", tmp_path, "abc", make)
    with caplog.at_level(logging.INFO):
        second, again = run_stage("sft", tmp_path, "abc", make)
    assert (first, len(calls)) == (second, 1)
    assert figures["gain"] == again["gain"] == 0.5
    assert math.isnan(again["unknown"])
    assert "done before" in caplog.text
    run_stage("sft", tmp_path, "def", make)
    assert len(calls) == 2


def test_a_killed_stage_goes_on_in_its_folder(tmp_path: Path) -> None:
    def killed(folder: Path) -> None:
        (folder / "shard-0").write_text("kept")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage("beams", tmp_path, "k", killed)

    def resumed(folder: Path) -> dict[str, float]:
        return {"found": float((folder / "shard-0").read_text() == "kept")}

    assert run_stage("beams", tmp_path, "k", resumed)[1] == {"found": 1.0}
