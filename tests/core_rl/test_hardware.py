"""From the hardware group to Lightning: keyword arguments, strategies, seeds."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from core_rl import hardware
from core_rl.config import HardwareConfig


def test_absent_devices_are_counted_out() -> None:
    there = torch.cuda.device_count()
    with pytest.raises(ValueError, match=f"shows {there} GPUs"):
        hardware.prepare(HardwareConfig(accelerator="cuda", devices=there + 1), seed=0)


def test_a_seed_repeats_every_generator() -> None:
    def draw() -> tuple[float, float, float]:
        hardware.prepare(HardwareConfig(), seed=7)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    assert draw() == draw()


@pytest.mark.parametrize(
    ("variables", "main"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"RANK": "8", "LOCAL_RANK": "0"}, False),  # first process of the second machine
        ({"SLURM_PROCID": "3"}, False),
    ],
)
def test_one_process_of_a_run_writes(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], main: bool
) -> None:
    for name in hardware.RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert hardware.is_main_process() == main
