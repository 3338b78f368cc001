"""Run a script in two processes that talk over gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.limits import HUNG

ROOT = Path(__file__).parents[1]


def together(*script: str | Path) -> None:
    """Run a script, or `-m` and a module, with its arguments; both processes must end well."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *launcher, *map(str, script)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=HUNG,
    )
    assert done.returncode == 0, done.stderr[-5000:]
