"""The machine: its devices, its threads, its random numbers, and the processes of a run."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from core_rl.config import HardwareConfig

T = TypeVar("T")
U = TypeVar("U")

# Set by torchrun, by Lightning for the processes it starts, and by Slurm.
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")


def process_rank() -> int:
    """Number of this process among those of the run."""
    ranks = (os.environ[name] for name in RANK_VARIABLES if name in os.environ)
    return int(next(ranks, "0"))


def is_main_process() -> bool:
    """True in the one process of a run that writes files."""
    return process_rank() == 0


def _is_alone() -> bool:
    return not (dist.is_available() and dist.is_initialized())


def sum_over_ranks(values: Tensor) -> Tensor:
    """Add tensors, in place, over the processes of the run; all of them must call this."""
    if not _is_alone():
        dist.all_reduce(values)
    return values


def over_ranks(items: Sequence[T], work: Callable[[Sequence[T]], Sequence[U]]) -> list[U]:
    """Share items out over the processes of the run and gather their results in order.

    Args:
        items: the same on every process; all of them must ask.
        work: from items to one result each, which must be picklable.
    """
    if _is_alone():
        return list(work(items))
    rank, world = dist.get_rank(), dist.get_world_size()
    parts: list[Sequence[U]] = [()] * world
    dist.all_gather_object(parts, list(work(items[rank::world])))
    results: list[U] = []
    for index in range(len(items)):
        results.append(parts[index % world][index // world])
    return results


def from_all(value: T) -> list[T]:
    """Gather one value of each process of the run, in order; all of them must call this."""
    if _is_alone():
        return [value]
    values = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def of_main(value: T) -> T:
    """Return the main process's value on every process of the run; all of them must ask."""
    if _is_alone():
        return value
    told = [value]
    dist.broadcast_object_list(told)
    return told[0]


def wait_for_all() -> None:
    """Wait until all processes of the run have reached this call."""
    if not _is_alone():
        dist.barrier()


def mean_over_ranks(value: float, device: torch.device) -> float:
    """Average a number over the processes of the run; all of them must call this."""
    if _is_alone():
        return value
    return float(sum_over_ranks(torch.tensor(value, device=device))) / dist.get_world_size()


def prepare(hardware: HardwareConfig, seed: int) -> None:
    """Check that the devices are there, set the threads and seed every generator.

    Args:
        hardware: the machine asked for.
        seed: of Python, NumPy and torch, on every device.

    Raises:
        ValueError: the machine has fewer devices than asked for.
    """
    check_devices(hardware)
    if hardware.accelerator == "cpu":
        # DeepSpeed, where it is installed, is imported by others and warns that it finds no GPU.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if hardware.threads and hardware.accelerator == "cpu":
        torch.set_num_threads(hardware.threads)
    _seed_all(seed)


def check_devices(hardware: HardwareConfig) -> None:
    """Raise ValueError if there are fewer GPUs than requested."""
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


def draw_apart(rank: int) -> None:
    """Give a further process random numbers of its own; the first one's stay as they are.

    With one state for all, processes that are given the same question draw the same candidates.
    """
    if rank:
        seed = int(np.random.SeedSequence([torch.initial_seed(), rank]).generate_state(1)[0])
        _seed_all(seed)


def _seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def own_randomness(device: torch.device) -> AbstractContextManager[None]:
    """Restore the random state of the CPU and of `device` at the end."""
    return torch.random.fork_rng([device.index or 0] if device.type == "cuda" else [])
