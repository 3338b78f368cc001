"""A rehearsal is checked against what it takes; the devices of the real run are told."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from core_rl.config import HardwareConfig
from core_rl.doctor.findings import Verdict, failed
from core_rl.preflight.checks import preflight
from core_rl.preflight.rehearsal import as_rehearsed

EIGHT = {"accelerator": "gpu", "devices": 8, "num_nodes": 2, "strategy": "ddp"}


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.mark.parametrize("rehearse", [True, False])
def test_a_rehearsal_asks_this_machine_for_no_gpu(rehearse: bool) -> None:
    config: dict[str, Any] = {
        "hardware": EIGHT | {"rehearse": rehearse},
        "model": {"path": "nobody/some-model-7B"},
        "trainer": {"batch_size": 1},
    }
    found = {one.check: one for one in preflight(config, thorough=False)}
    devices = found["environment/devices"]
    assert devices.verdict is (Verdict.skipped if rehearse else Verdict.fail)
    assert ("environment/real_run" in found) == rehearse
    if rehearse:
        told = found["environment/real_run"]
        assert not failed([told])
        # 7e9 parameters: weights 4, gradients 4, DDP's copy of them 4, AdamW 8 bytes each.
        assert "hardware.devices=8 of kind gpu on each of 2 nodes" in told.expected
        assert "at least 130.4 GiB each" in told.expected


def test_the_rehearsed_machine_is_the_one_that_runs() -> None:
    hardware = as_rehearsed({"hardware": EIGHT | {"rehearse": True}})["hardware"]
    assert HardwareConfig(**hardware) == HardwareConfig(**EIGHT, rehearse=True)
    assert (hardware["accelerator"], hardware["devices"], hardware["num_nodes"]) == ("cpu", 2, 1)
