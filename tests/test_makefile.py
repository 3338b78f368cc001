"""What `make` says of a Python that it cannot use; nothing is installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIM = "echo 'pyenv: python3.12: command not found' >&2; exit 127"
NO_VENV = 'case "$2" in *ensurepip*) exit 1;; esac; exit 0'


@pytest.mark.parametrize(
    ("script", "said", "unsaid"),
    [
        (SHIM, "does not start a Python 3.11 or 3.12", "python3-venv"),
        (NO_VENV, "install python3-venv", "does not start"),
    ],
    ids=["shim", "no venv"],
)
def test_a_python_that_will_not_do_is_told_its_cause(
    script: str, said: str, unsaid: str, tmp_path: Path
) -> None:
    python = tmp_path / "python3.12"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "env", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert said in done.stderr and unsaid not in done.stderr
    assert not (tmp_path / "venv").exists()
