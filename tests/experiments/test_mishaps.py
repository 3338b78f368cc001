"""Errors of files in one line: the file, and the cure."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from experiments.mishaps import told


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.ENOSPC, "No space left on device: free some space .*paths.output.*TMPDIR.*auto"),
        (errno.EDQUOT, "free some space"),
        (errno.EACCES, "Permission denied: change its rights, or choose another folder"),
        (errno.EROFS, "Read-only file system: change its rights"),
        (errno.ENOTDIR, "Not a directory: a file stands where a folder should be"),
        (errno.EEXIST, "File exists: a file stands where a folder should be"),
        (errno.ELOOP, "a link leads nowhere"),
        (errno.ENOENT, "No such file or directory$"),
        (errno.EIO, "Input/output error$"),
    ],
)
def test_what_the_system_says(number: int, cure: str) -> None:
    line = told(OSError(number, os.strerror(number), "outputs/x.json"))
    assert line is not None and "\n" not in line
    assert re.search(rf"outputs/x\.json: .*{cure}", line), line


def raised(work: Callable[[], object]) -> Exception:
    try:
        work()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_really_on_this_system(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        place = tmp_path / name
        assert f"{place}: File exists: " in str(told(raised(lambda place=place: place.mkdir())))
    full = Path("/dev/full")
    if full.exists():
        said = str(told(raised(lambda: full.write_text("x"))))
        assert "No space left on device: free some space" in said


def read_as(kind: str, path: Path) -> object:
    if kind == "json":
        return json.loads(path.read_text())
    if kind == "yaml":
        return yaml.safe_load(path.read_text())
    return load_file(path)


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if one of our modules had read the file."""
    monkeypatch.setitem(globals(), "__name__", "core_rl.pretended")


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize(
    ("kind", "content", "what"),
    [
        ("json", "{", "JSONDecodeError"),
        ("json", "[" * 100_000, "nested too deeply"),
        ("yaml", "a: [", "ParserError"),
        ("yaml", "a: '", "ScannerError"),
        ("safetensors", "PK", "SafetensorError"),
    ],
)
def test_the_file_is_named_though_its_reader_does_not(
    kind: str, content: str, what: str, tmp_path: Path
) -> None:
    path = tmp_path / "damaged"
    path.write_text(content)
    line = str(told(raised(lambda: read_as(kind, path))))
    assert line.startswith(f"{path}: cannot be read") and what in line and "\n" not in line


def test_other_errors_are_not_its_business() -> None:
    assert told(ValueError("data_mix.size=0: expected above 0")) is None
    assert told(FileNotFoundError("model.path=x: no config.json there")) is None
