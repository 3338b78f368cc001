"""Folders that are whole, changed, or were killed on their way."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from core_rl.sealed import (
    SEAL,
    check_whole,
    damage,
    hidden,
    is_whole,
    put_in_place,
    recover,
    seal,
)


def filled(folder: Path, text: str = "weights") -> Path:
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.bin").write_bytes(text.encode() * 1000)
    (folder / "b.json").write_text("{}")
    seal(folder)
    return folder


def test_a_sealed_folder_is_whole(tmp_path: Path) -> None:
    assert is_whole(filled(tmp_path / "x"))
    check_whole(tmp_path / "x", "model.path")
    check_whole(tmp_path, "model.path")  # of others: nothing is known


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: (f / "b.json").unlink(), "b.json is missing"),
        (lambda f: (f / "deep/a.bin").write_bytes(b"weig"), "a.bin has 4 bytes instead of 7000"),
        (lambda f: (f / "b.json").write_text("{]"), "b.json has another checksum"),
        (lambda f: (f / SEAL).write_text("[1, 2"), "whole.json cannot be read"),
        (lambda f: (f / SEAL).write_text("[1, 2]"), "whole.json cannot be read"),
    ],
)
def test_a_change_is_named(change: object, says: str, tmp_path: Path) -> None:
    folder = filled(tmp_path / "x")
    change(folder)  # type: ignore[operator]
    assert says in str(damage(folder))
    with pytest.raises(ValueError, match=rf"model\.path={folder}: damaged: .*delete {SEAL}"):
        check_whole(folder, "model.path")


def test_without_a_seal_it_was_not_written_to_its_end(tmp_path: Path) -> None:
    folder = filled(tmp_path / "x")
    (folder / SEAL).unlink()
    assert "not written to its end" in str(damage(folder))


@pytest.mark.parametrize("moment", range(5))
def test_wherever_a_replacement_is_killed_one_of_both_is_there(
    moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = filled(tmp_path / "best", "old")

    class Killed(BaseException):
        pass

    steps = 0

    def counted(function: object) -> object:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal steps
            if steps == moment:
                raise Killed
            steps += 1
            return function(*args, **kwargs)  # type: ignore[operator]

        return call

    monkeypatch.setattr(Path, "rename", counted(Path.rename))
    monkeypatch.setattr(shutil, "rmtree", counted(shutil.rmtree))
    new = filled(hidden(folder), "new")
    try:
        put_in_place(new, folder)
    except Killed:
        assert moment < 4
    monkeypatch.undo()
    recover(folder)
    assert is_whole(folder)
    text = (folder / "deep" / "a.bin").read_bytes()[:3]
    assert text == (b"old" if moment < 2 else b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_half_written_copy_is_not_put_back(tmp_path: Path) -> None:
    folder = tmp_path / "best"
    hidden(folder).mkdir()
    (hidden(folder) / "b.json").write_text("{}")
    recover(folder)
    assert not list(tmp_path.iterdir())
