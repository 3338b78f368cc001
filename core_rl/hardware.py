"""The machine: what Lightning's Trainer is built with, threads and seeds."""

from __future__ import annotations

import os
import random
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from core_rl.config import HardwareConfig

if TYPE_CHECKING:
    from lightning.pytorch.strategies import Strategy

# Set by torchrun, by Lightning for the processes it starts, and by Slurm.
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")

# Instead of ZeRO 3.
WHOLE_WEIGHTS = "use hardware=gpu8_zero2, and model.lora.r=16 where that does not fit"


def is_main_process() -> bool:
    """True in the one process of a run that writes files."""
    ranks = (os.environ[name] for name in RANK_VARIABLES if name in os.environ)
    return next(ranks, "0") == "0"


def _is_alone() -> bool:
    return not (dist.is_available() and dist.is_initialized())


def sum_over_ranks(values: Tensor) -> Tensor:
    """Add tensors, in place, over the processes of the run; all of them must ask."""
    if not _is_alone():
        dist.all_reduce(values)
    return values


def mean_over_ranks(value: float, device: torch.device) -> float:
    """Average a number over the processes of the run; all of them must ask."""
    if _is_alone():
        return value
    return float(sum_over_ranks(torch.tensor(value, device=device))) / dist.get_world_size()


def prepare(hardware: HardwareConfig, seed: int) -> None:
    """Check that the devices are there, set the threads and seed every generator.

    Args:
        hardware: the machine asked for.
        seed: of Python, NumPy and torch, on every device.

    Raises:
        ValueError: the machine has fewer devices than asked for, or weights would be in parts.
    """
    check_weights(hardware)
    check_devices(hardware)
    if hardware.threads and hardware.accelerator == "cpu":
        torch.set_num_threads(hardware.threads)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def check_weights(hardware: HardwareConfig) -> None:
    """Raise ValueError where ZeRO 3 would take the policy's weights apart.

    A process that has drawn its last token then waits for none of the others, and what a single
    process saves, or copies for reference, is empty.
    """
    if hardware.strategy == "deepspeed" and hardware.zero_stage == 3:
        raise ValueError(
            "hardware.zero_stage=3, as in conf/hardware/gpu8_zero3.yaml: no process holds whole "
            f"weights to draw from, to save or to keep for reference; {WHOLE_WEIGHTS}"
        )


def check_devices(hardware: HardwareConfig) -> None:
    """Raise ValueError where GPUs are asked for that are not there."""
    if hardware.accelerator not in ("gpu", "cuda"):
        return
    found = torch.cuda.device_count()
    if found == 0 and hardware.accelerator == "gpu" and torch.backends.mps.is_available():
        found = 1
    if found < hardware.devices:
        raise ValueError(
            f"hardware.devices={hardware.devices}: this machine shows {found} GPUs to torch "
            f"{torch.__version__}; use hardware=cpu, hardware.devices=N with fewer, or install "
            "torch for your GPU"
        )


def own_randomness(device: torch.device) -> AbstractContextManager[None]:
    """Leave the run's random state, on the CPU and on `device`, as it is, whatever is drawn."""
    return torch.random.fork_rng([device.index or 0] if device.type == "cuda" else [])


def trainer_kwargs(hardware: HardwareConfig) -> dict[str, Any]:
    """Keyword arguments of `lightning.Trainer` that the hardware decides."""
    return {
        "accelerator": hardware.accelerator,
        "devices": hardware.devices,
        "precision": hardware.precision,
        "strategy": build_strategy(hardware),
    }


def build_strategy(hardware: HardwareConfig) -> Strategy | str:
    """Build what spreads a run over devices; `auto` (no strategy) for one device.

    Raises:
        ValueError: DeepSpeed asked for on CPU.
        ImportError: DeepSpeed asked for and not installed; names the extra.
    """
    if hardware.strategy == "deepspeed":
        return _deepspeed(hardware)
    if hardware.devices == 1 and hardware.strategy == "auto":
        return "auto"
    from lightning.pytorch.strategies import DDPStrategy

    return DDPStrategy(**ddp_kwargs(hardware))


def ddp_kwargs(hardware: HardwareConfig) -> dict[str, Any]:
    """Keyword arguments of Lightning's DDPStrategy."""
    backend = "gloo" if hardware.accelerator == "cpu" else "nccl"
    return {"process_group_backend": backend, "find_unused_parameters": False}


def deepspeed_kwargs(hardware: HardwareConfig) -> dict[str, Any]:
    """Keyword arguments of Lightning's DeepSpeedStrategy.

    With `offload` the optimiser's state lives in the machine's memory, and under ZeRO 3 the weights
    as well.
    """
    return {
        "stage": hardware.zero_stage,
        "offload_optimizer": hardware.offload,
        "offload_parameters": hardware.offload and hardware.zero_stage == 3,
        # Only DeepSpeed's own log reads it; given, Lightning need not ask the loader.
        "logging_batch_size_per_gpu": 1,
    }


def _deepspeed(hardware: HardwareConfig) -> Strategy:
    if hardware.accelerator == "cpu":
        raise ValueError(
            "hardware.strategy='deepspeed': Lightning runs DeepSpeed on GPUs only; "
            "use hardware.strategy=ddp on CPU"
        )
    try:
        import deepspeed  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "hardware.strategy=deepspeed needs DeepSpeed: pip install 'people-focus-rl[deepspeed]'"
        ) from error
    from lightning.pytorch.strategies import DeepSpeedStrategy

    strategy = DeepSpeedStrategy(**deepspeed_kwargs(hardware))
    if hardware.offload:
        # Or DeepSpeed refuses any optimiser but its own; Lightning has no argument for it.
        assert isinstance(strategy.config, dict)
        strategy.config.setdefault("zero_force_ds_cpu_optimizer", False)
    return strategy
