"""From the hardware group to Lightning: keyword arguments, strategies, seeds."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import random
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning import Trainer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy

from core_rl import hardware
from core_rl.config import HardwareConfig

WITHOUT_DEEPSPEED = importlib.util.find_spec("deepspeed") is None


def test_one_cpu_process_builds_a_trainer() -> None:
    trainer = Trainer(**hardware.trainer_kwargs(HardwareConfig()), logger=False)
    assert trainer.world_size == 1


@pytest.mark.parametrize("strategy", ["auto", "ddp"])
def test_two_cpu_processes_average_over_gloo(strategy: str) -> None:
    built = hardware.build_strategy(HardwareConfig(devices=2, strategy=strategy))
    assert isinstance(built, DDPStrategy)
    assert built.process_group_backend == "gloo"


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("offload", [False, True])
def test_lightning_knows_every_deepspeed_argument(stage: int, offload: bool) -> None:
    kwargs = hardware.deepspeed_kwargs(HardwareConfig(zero_stage=stage, offload=offload))
    assert kwargs.keys() <= inspect.signature(DeepSpeedStrategy).parameters.keys()
    assert kwargs["offload_parameters"] == (offload and stage == 3)


@pytest.fixture
def as_if_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Lightning build DeepSpeed's configuration where DeepSpeed is not installed."""
    logger = SimpleNamespace(logger=logging.getLogger("deepspeed"))
    package = SimpleNamespace(utils=SimpleNamespace(logging=logger))
    monkeypatch.setitem(sys.modules, "deepspeed", package)
    for flag in ("_DEEPSPEED_AVAILABLE", "_DEEPSPEED_GREATER_EQUAL_0_16"):
        monkeypatch.setattr(f"lightning.pytorch.strategies.deepspeed.{flag}", True)


@pytest.mark.usefixtures("as_if_installed")
@pytest.mark.parametrize("offload", [False, True])
def test_an_offloaded_optimiser_may_be_torchs_own(offload: bool) -> None:
    machine = HardwareConfig(accelerator="gpu", strategy="deepspeed", offload=offload)
    config = hardware.build_strategy(machine).config
    assert config["zero_optimization"]["stage"] == 2
    assert ("offload_optimizer" in config["zero_optimization"]) == offload
    assert config.get("zero_force_ds_cpu_optimizer", True) == (not offload)


@pytest.mark.skipif(WITHOUT_DEEPSPEED, reason="DeepSpeed is an extra, not installed here")
def test_deepspeed_builds_its_strategy() -> None:
    machine = HardwareConfig(accelerator="gpu", strategy="deepspeed", zero_stage=3, offload=True)
    built = hardware.build_strategy(machine)
    assert isinstance(built, DeepSpeedStrategy)
    assert built.config["zero_optimization"]["stage"] == 3
    assert built.config["zero_optimization"]["offload_optimizer"]["device"] == "cpu"


@pytest.mark.skipif(not WITHOUT_DEEPSPEED, reason="DeepSpeed is installed here")
def test_a_missing_deepspeed_names_the_extra() -> None:
    with pytest.raises(ImportError, match=r"people-focus-rl\[deepspeed\]"):
        hardware.build_strategy(HardwareConfig(accelerator="gpu", strategy="deepspeed"))


def test_deepspeed_on_cpu_is_the_users_mistake() -> None:
    with pytest.raises(ValueError, match=r"hardware\.strategy=ddp"):
        hardware.build_strategy(HardwareConfig(strategy="deepspeed"))


def test_weights_in_parts_are_refused_with_what_to_use_instead() -> None:
    machine = HardwareConfig(accelerator="gpu", devices=8, strategy="deepspeed", zero_stage=3)
    with pytest.raises(ValueError, match=r"gpu8_zero3\.yaml.*use hardware=gpu8_zero2"):
        hardware.prepare(machine, seed=0)
    hardware.check_weights(replace(machine, zero_stage=2))
    hardware.check_weights(replace(machine, strategy="ddp"))  # the stage is not read


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
