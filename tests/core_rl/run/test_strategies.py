"""Strategies and precisions: what is built, and what a run with each learns."""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy

from core_rl.config import HardwareConfig
from core_rl.run import strategies
from tests.core_rl import strategy_run
from tests.two_processes import together

WITHOUT_DEEPSPEED = importlib.util.find_spec("deepspeed") is None
needs_deepspeed = pytest.mark.skipif(WITHOUT_DEEPSPEED, reason="DeepSpeed is not installed here")


def test_one_cpu_process_builds_a_trainer() -> None:
    trainer = Trainer(**strategies.trainer_kwargs(HardwareConfig()), logger=False)
    assert trainer.world_size == 1


@pytest.mark.parametrize("strategy", ["auto", "ddp"])
def test_two_cpu_processes_average_over_gloo(strategy: str) -> None:
    built = strategies.build_strategy(HardwareConfig(devices=2, strategy=strategy))
    assert isinstance(built, DDPStrategy)
    assert built.process_group_backend == "gloo"


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("offload", [False, True])
def test_lightning_knows_every_deepspeed_argument(stage: int, offload: bool) -> None:
    kwargs = strategies.deepspeed_kwargs(HardwareConfig(zero_stage=stage, offload=offload))
    assert kwargs.keys() <= inspect.signature(DeepSpeedStrategy).parameters.keys()
    assert kwargs["offload_parameters"] == (offload and stage == 3)


@needs_deepspeed
@pytest.mark.parametrize("offload", [False, True])
def test_an_offloaded_optimiser_may_be_torchs_own(offload: bool) -> None:
    machine = HardwareConfig(accelerator="gpu", strategy="deepspeed", offload=offload)
    config = strategies.build_strategy(machine).config
    assert config["zero_optimization"]["stage"] == 2
    assert ("offload_optimizer" in config["zero_optimization"]) == offload
    assert config.get("zero_force_ds_cpu_optimizer", True) == (not offload)


@pytest.mark.skipif(not WITHOUT_DEEPSPEED, reason="DeepSpeed is installed here")
def test_a_missing_deepspeed_names_the_extra() -> None:
    with pytest.raises(ImportError, match=r"people-focus-rl\[deepspeed\]"):
        strategies.build_strategy(HardwareConfig(accelerator="gpu", strategy="deepspeed"))


@pytest.mark.parametrize(
    ("asked", "got"), [({"devices": 8, "num_nodes": 2}, 2), ({"devices": 1}, 1)]
)
def test_a_rehearsal_keeps_the_preset_and_leaves_the_gpus(asked: dict[str, int], got: int) -> None:
    machine = HardwareConfig(
        accelerator="gpu", strategy="deepspeed", precision="bf16-true", rehearse=True, **asked
    )
    assert (machine.accelerator, machine.world_size) == ("cpu", got)
    assert (machine.strategy, machine.precision) == ("deepspeed", "bf16-true")


# -- one process in each precision ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "strategy"),
    [
        ("64-true", "auto"),
        ("bf16-mixed", "auto"),
        ("bf16-true", "auto"),
        ("bf16-true", "ddp"),
        pytest.param("bf16-true", "deepspeed", marks=needs_deepspeed),
        pytest.param("32-true", "deepspeed", marks=needs_deepspeed),
    ],
)
def test_a_run_learns_in_every_precision(precision: str, strategy: str, tmp_path: Path) -> None:
    wanted = strategy_run.trained(tmp_path / "full", [0, 1], HardwareConfig())
    machine = HardwareConfig(precision=precision, strategy=strategy)
    got = strategy_run.trained(tmp_path / "other", [0, 1], machine)
    # bf16 keeps 8 bits: weights of about 1 differ by a few hundredths.  float64 moves only those
    # whose gradient is rounding in float32: AdamW takes a step of up to `lr` for them all the same.
    within = {"32-true": 1e-5, "64-true": 0.005}.get(precision, 0.05)
    near = pytest.approx(strategy_run.logits(wanted), abs=within)
    assert strategy_run.logits(got) == near
    state = dict(got.controller.named_buffers())
    assert state["weight"].dtype is state["ema"].dtype is torch.float32
    assert float(state["weight"]) == pytest.approx(0.3, rel=1e-6)


@needs_deepspeed
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_deepspeed_learns_from_micro_batches_what_it_learns_from_one_batch(
    stage: int, tmp_path: Path
) -> None:
    """Norms, which Adam does not show and the clip acts on; two of the four groups are flat."""
    wanted = strategy_run.norms(tmp_path / "whole", [[0, 1, 2, 3]], HardwareConfig())
    machine = HardwareConfig(strategy="deepspeed", zero_stage=stage)
    for cut in ([[0, 1, 2, 3]], [[0], [2], [1], [3]]):
        got = strategy_run.norms(tmp_path / str(len(cut)), cut, machine)
        assert got == pytest.approx(wanted, rel=1e-5)


@needs_deepspeed
@pytest.mark.parametrize("offload", [False, True])
def test_zero3_leaves_a_policy_that_can_be_trained_again(offload: bool, tmp_path: Path) -> None:
    machine = HardwareConfig(strategy="deepspeed", zero_stage=3, offload=offload)
    linear = torch.nn.functional.linear
    got, wanted = (
        strategy_run.trained_twice(tmp_path / hardware.strategy, hardware)
        for hardware in (machine, HardwareConfig())
    )
    assert torch.nn.functional.linear is linear  # DeepSpeed would replace it for good
    assert not vars(got.policy.logits)
    assert strategy_run.logits(got) == pytest.approx(strategy_run.logits(wanted), abs=1e-5)


# -- two processes under each strategy -----------------------------------------------------------


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("strategies")
    together(strategy_run.__file__, folder)
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


@needs_deepspeed
@pytest.mark.slow
@pytest.mark.parametrize("name", list(strategy_run.STRATEGIES))
def test_two_processes_learn_what_one_does(
    name: str, ranks: list[dict[str, Any]], tmp_path: Path
) -> None:
    wanted = strategy_run.logits(strategy_run.trained(tmp_path, [0, 1], HardwareConfig()))
    for rank in ranks:
        assert rank[name] == pytest.approx(wanted, abs=1e-5)


@needs_deepspeed
@pytest.mark.slow
@pytest.mark.parametrize("name", list(strategy_run.STRATEGIES))
def test_two_processes_leave_out_what_is_broken_on_one(
    name: str, ranks: list[dict[str, Any]]
) -> None:
    first, second = (rank[f"{name} broken"] for rank in ranks)
    assert first == second
    assert first["skipped"] == 1
    moved = [a != b for a, b in itertools.pairwise(first["weights"])]
    assert moved == [True, True, False, True]


@needs_deepspeed
@pytest.mark.slow
def test_processes_draw_apart(ranks: list[dict[str, Any]]) -> None:
    assert not set(ranks[0]["drawn"]) & set(ranks[1]["drawn"])


@needs_deepspeed
@pytest.mark.slow
def test_the_first_process_hears_what_another_one_found(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["found"] == ["ok ", "FAIL process 1: more than 0 here"]
    assert ranks[1]["found"] == ["FAIL more than 0 here"]
