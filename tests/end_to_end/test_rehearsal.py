"""GPU presets rehearsed on CPU: their strategy, precision and accumulation, two steps each."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.end_to_end.running import metrics, typed

pytest.importorskip("deepspeed")

TINY = (
    "+exp=stage4_people_focus",
    "trainer=smoke",
    "trainer.batch_size=2",
    "trainer.accumulation=2",
    "rollout=g4",
    "rollout.max_completion=48",
    "data_mix.size=24",
    "model.warm.gate_clips=4",
    "model.recompute=layers",
    "logger=csv",
    "hardware.rehearse=true",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "more", "processes"),
    [
        ("gpu8_zero2", (), 2),
        ("gpu8_zero3", (), 2),
        ("multinode_zero3", ("curriculum=rce",), 2),
        ("gpu1", ("hardware.precision=bf16-true",), 1),
    ],
)
def test_a_preset_runs_from_start_to_report(
    preset: str, more: tuple[str, ...], processes: int, output: Path
) -> None:
    folder = typed(*TINY, f"hardware={preset}", *more, output=output)
    assert {"before/accuracy", "after/accuracy"} <= metrics(folder).keys()
    health = json.loads((folder / "health.json").read_text())
    assert all(one["healthy"] for one in health["rounds"])
    samples = pd.read_parquet(folder / "samples.parquet")
    candidates = 1 if "curriculum=rce" in more else 4
    assert len(samples) == processes * 2 * 2 * 2 * candidates  # steps, micro-batches, questions
    (curves,) = folder.rglob("metrics.csv")
    norms = pd.read_csv(curves)["train/grad_norm"].dropna()
    assert len(norms) == 2 and (norms > 0).all()
