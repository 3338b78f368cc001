"""A program that starts itself again, once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from experiments.malloc import FOR_TENSORS

PROGRAM = """
import os, sys
from experiments.malloc import restart_with_heap_for_tensors
print("started", flush=True)
restart_with_heap_for_tensors()
print(os.environ["GLIBC_TUNABLES"], *sys.argv[1:])
"""


def said(**environment: str) -> list[str]:
    kept = {name: value for name, value in os.environ.items() if name not in FOR_TENSORS}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "an argument"],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone has these caches")
def test_it_starts_again_once_with_the_same_arguments() -> None:
    assert said() == ["started", "started", f"{FOR_TENSORS['GLIBC_TUNABLES']} an argument"]


def test_what_somebody_has_set_stays() -> None:
    assert said(GLIBC_TUNABLES="") == ["started", " an argument"]
