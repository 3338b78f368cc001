"""Lightning's strategies and precision plugins, as this loop needs them.

A batch is a list of records or a frozen dataclass (`core_rl.types.Group`).  Lightning's precision
plugins walk every batch to convert its tensors and refuse frozen dataclasses.  The loop casts
inputs itself, next to the model, so the plugins here leave batches alone.

DeepSpeed on processors serves rehearsals: the strategy of a GPU preset on a machine without one.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from lightning.pytorch.plugins.precision import (
    DeepSpeedPrecision,
    DoublePrecision,
    HalfPrecision,
    Precision,
)
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, Strategy

from core_rl.config import HardwareConfig
from core_rl.run.checkpoint_io import WholeFiles
from core_rl.run.zero3 import GatheredZero3

if TYPE_CHECKING:
    from torch.nn import Module
    from torch.optim import Optimizer

Data = TypeVar("Data")


class _WholeBatches(Precision):
    """Hand batches to the loop as they are."""

    def convert_input(self, data: Data) -> Data:
        return data

    @contextmanager
    def forward_context(self) -> Generator[None, None, None]:
        """Keep the default dtype: log-probs, rewards and losses are computed in float32."""
        yield


class _Half(_WholeBatches, HalfPrecision):
    """`bf16-true` and `16-true`."""


class _Double(_WholeBatches, DoublePrecision):
    """`64-true`."""


class _DeepSpeedPrecision(DeepSpeedPrecision):
    """Any precision under DeepSpeed."""

    def convert_input(self, data: Data) -> Data:
        return data


def trainer_kwargs(hardware: HardwareConfig) -> dict[str, Any]:
    """Keyword arguments of `lightning.Trainer` that the hardware decides."""
    plugin = precision_plugin(hardware)
    plugins: list[Any] = [plugin] if plugin else []
    if hardware.strategy != "deepspeed":  # which writes a folder itself
        plugins.append(WholeFiles())
    # The processes are there already: `core_rl.run.processes`, torchrun or Slurm started them.
    if hardware.world_size > 1 and "RANK" in os.environ:
        plugins.append(TorchElasticEnvironment())
    return {
        "accelerator": hardware.accelerator,
        "devices": hardware.devices,
        "num_nodes": hardware.num_nodes,
        "strategy": build_strategy(hardware),
        "plugins": plugins,
        **({} if plugin else {"precision": hardware.precision}),
    }


def precision_plugin(hardware: HardwareConfig) -> Precision | None:
    """Plugin for a precision whose own would walk the batches; None where Lightning's serves."""
    precision: Any = hardware.precision
    if hardware.strategy == "deepspeed":
        return _DeepSpeedPrecision(precision)
    if precision in ("bf16-true", "16-true"):
        return _Half(precision)
    return _Double() if precision == "64-true" else None


def build_strategy(hardware: HardwareConfig) -> Strategy | str:
    """Build what spreads a run over devices; `auto` (no strategy) for one device.

    Raises:
        ValueError: DeepSpeed asked for on CPU outside a rehearsal.
        ImportError: DeepSpeed asked for and not installed; names the extra.
    """
    if hardware.strategy == "deepspeed":
        return _deepspeed(hardware)
    if hardware.world_size == 1 and hardware.strategy == "auto":
        return "auto"
    return DDPStrategy(**ddp_kwargs(hardware))


def backend(hardware: HardwareConfig) -> str:
    """Library through which the processes of a run talk."""
    return "gloo" if hardware.accelerator == "cpu" else "nccl"


def ddp_kwargs(hardware: HardwareConfig) -> dict[str, Any]:
    """Keyword arguments of Lightning's DDPStrategy."""
    return {
        "process_group_backend": backend(hardware),
        "timeout": timedelta(minutes=hardware.timeout_minutes),
        "find_unused_parameters": False,
    }


def deepspeed_kwargs(hardware: HardwareConfig) -> dict[str, Any]:
    """Keyword arguments of Lightning's DeepSpeedStrategy.

    With `offload` the optimiser's state lives in the machine's memory, and under ZeRO 3 the weights
    as well.
    """
    return {
        "stage": hardware.zero_stage,
        "offload_optimizer": hardware.offload,
        "offload_parameters": hardware.offload and hardware.zero_stage == 3,
        "timeout": timedelta(minutes=hardware.timeout_minutes),
        "process_group_backend": backend(hardware),
        # Only DeepSpeed's own log reads it; given, Lightning need not ask the loader.
        "logging_batch_size_per_gpu": 1,
    }


def _deepspeed(hardware: HardwareConfig) -> Strategy:
    on_cpu = hardware.accelerator == "cpu"
    if on_cpu:
        # Read when deepspeed is imported.
        os.environ["DS_ACCELERATOR"] = "cpu"
    try:
        import deepspeed  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "hardware.strategy=deepspeed needs DeepSpeed: pip install 'people-focus-rl[deepspeed]'"
        ) from error
    whole = hardware.zero_stage < 3
    kind: type[DeepSpeedStrategy] = DeepSpeedStrategy if whole else GatheredZero3
    if on_cpu:
        kind = CpuDeepSpeedStrategy if whole else CpuZero3
    strategy = kind(**deepspeed_kwargs(hardware))
    # Lightning has no argument for these.
    assert isinstance(strategy.config, dict)
    if hardware.offload or on_cpu:
        # Or DeepSpeed refuses any optimiser but its own.
        strategy.config.setdefault("zero_force_ds_cpu_optimizer", False)
    if not whole:
        # Small tensors, too, are gathered by `GatheredZero3`.
        strategy.config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        # Or DeepSpeed replaces torch's `linear` for good: `operations_again` does not know its own.
        strategy.config["zero_optimization"]["memory_efficient_linear"] = False
    return strategy


class CpuDeepSpeedStrategy(DeepSpeedStrategy):
    """DeepSpeed over gloo on processors, which Lightning refuses.

    It skips the checks for a GPU and the shared-memory operator, which DeepSpeed would compile.
    """

    def setup_environment(self) -> None:
        # By name: the package's own attribute `torch` is the library.
        operators: Any = import_module("deepspeed.comm.torch")
        operators.build_shm_op = lambda: None
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    def _setup_model_and_optimizer(
        self, model: Module, optimizer: Optimizer | None, lr_scheduler: Any = None
    ) -> tuple[Any, Optimizer]:
        import deepspeed

        engine, sharded, _, _ = deepspeed.initialize(
            args=argparse.Namespace(device_rank=self.local_rank),
            config=self.config,
            model=model,
            model_parameters=[p for p in model.parameters() if p.requires_grad],
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            dist_init_required=False,
        )
        return engine, sharded


class CpuZero3(GatheredZero3, CpuDeepSpeedStrategy):
    """ZeRO 3 over gloo on processors."""
