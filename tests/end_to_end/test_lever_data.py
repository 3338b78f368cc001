"""Lever's data, as a user would make them: real processes, real files, a real kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lever.beams import read_beams

ROOT = Path(__file__).parents[2]
SMALL = (
    "trainer=smoke",
    "logger=none",
    "data_mix.world.demos=60",
    "data_mix.world.train=6",
    "data_mix.world.val=3",
    "data_mix.world.test=5",
    "data_mix.world.entities=20",
    "data_mix.world.topics=5",
    "data_mix.world.width=128",
    "data_mix.world.pool_text=4",
    "data_mix.world.pool_image=4",
    "data_mix.world.pool_random=4",
    "data_mix.candidate_num=12",
)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


def run(*overrides: str, output: Path, code: int = 0) -> dict[str, float]:
    """Run an experiment and return its metrics."""
    done = subprocess.run(
        [sys.executable, "-m", "experiments.run", *overrides, f"paths.output={output}"],
        cwd=ROOT,
        env={**os.environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-2000:]
    if code:
        return {}
    values: dict[str, float] = json.loads((output / "latest" / "metrics.json").read_text())
    return values


def test_beam_data_are_made_once_and_in_shards(output: Path) -> None:
    whole = run("+exp=lever_beams", *SMALL, output=output)
    assert whole["beams/queries"] == 6
    assert whole["beams/best"] >= whole["beams/worst"]
    assert whole["answerer_calls"] == 6 * (1 + 12 + 5 * 11)
    [path] = (output / "cache" / "lever").rglob("vqa-*.json")
    assert all(len(beam.shots) == 2 for record in read_beams(path) for beam in record.beams)
    again = run("+exp=lever_beams", *SMALL, output=output)
    assert again["answerer_calls"] == 0

    shard = output / "shard.json"
    longer = ("beams.few_shot=3", "beams.construct_order=right", f"beams.output={shard}")
    first = run("+exp=lever_beams", *SMALL, *longer, "beams.end=4", output=output)
    assert "beams/queries" not in first and not shard.exists()
    second = run("+exp=lever_beams", *SMALL, *longer, "beams.start=4", output=output)
    assert second["beams/queries"] == 6
    assert all(len(beam.shots) == 3 for record in read_beams(shard) for beam in record.beams)
