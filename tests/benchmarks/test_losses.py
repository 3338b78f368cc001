"""Our losses against TRL's own code, where `python -m benchmarks.losses` has installed it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.losses import FOLDER, ours, tensors


@pytest.mark.skipif(
    not (FOLDER / "trl-env" / ".installed").exists(),
    reason="TRL is not installed; `python -m benchmarks.losses` installs and compares",
)
def test_every_loss_is_trls() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.losses"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(Path(FOLDER / "losses.json").read_text())
    assert len(rows) == 60
    for row in rows:
        assert row["value_gap"] <= 1e-6 and row["gradient_gap"] <= 1e-6, row


def test_the_tensors_reach_every_branch() -> None:
    """A comparison in which nothing is clipped would prove little."""
    data = tensors(0)
    free, held = (ours(data, "bnpo", "token", delta, "off").item() for delta in (None, 1.5))
    assert free != held
    ratio = (data["logp"] - data["old"]).exp()[data["mask"]]
    assert (ratio > 1.3).any() and (ratio < 0.8).any()
    assert data["mask"].sum(-1).unique().numel() > 1
