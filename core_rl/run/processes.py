"""The processes of one run: started or joined before anything is done, watched until the end.

Lightning starts further processes inside `fit`.  Then the first process evaluates the start alone,
each other one evaluates it again, and the first waits for them.  Here all of them begin together:
this module starts them, or joins those that torchrun or Slurm started.

A process that fails ends the others: the first one watches its children, and a child watches for
the end of its parent.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from core_rl.config import HardwareConfig
from core_rl.hardware import RANK_VARIABLES
from core_rl.run.signals import REQUEUE, TerminatedError
from core_rl.run.strategies import backend

log = logging.getLogger(__name__)

GRACE = 20.0  # seconds in which a process may end by itself after another one has failed
SOON = 5.0  # seconds in which a process ends that is about to
CHILD = "PEOPLE_FOCUS_PARENT"  # process id of the first process, in the environment of the others


@contextmanager
def together(hardware: HardwareConfig, folder: Path) -> Iterator[Path]:
    """Let all processes of a run begin at once, and end all of them where one fails.

    Args:
        hardware: how many processes, and how long they wait for each other.
        folder: of the run.

    Yields:
        The first process's folder: torchrun and Slurm let each process open one of its own.

    Raises:
        ValueError: torchrun or Slurm started another number of processes than was asked for.
        RuntimeError: another process failed.
    """
    if hardware.world_size == 1:
        yield folder
        return
    children: list[subprocess.Popen[bytes]] = []
    if not started_outside(hardware):
        children = _start_others(hardware, folder)
    rank = int(os.environ["RANK"])
    if rank:
        _keep_quiet()
    threading.Thread(target=_watch, args=(children,), daemon=True).start()
    try:
        _join(hardware)
        yield _first_folder(folder)
        dist.barrier()
    except TerminatedError:
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(SOON)  # one that trained has saved together with this one
            child.terminate()
        raise
    except Exception as error:
        # A process that is lost shows as a RuntimeError of the call that waited for it.
        failed = _failed(children, wait=GRACE if isinstance(error, RuntimeError) else 0.0)
        if failed:
            raise RuntimeError(f"{failed}; its error stands above") from error
        raise
    finally:
        _leave(children)


def started_outside(hardware: HardwareConfig) -> bool:
    """Tell whether torchrun, Slurm or this module started this process; place it by RANK.

    Raises:
        ValueError: they started another number of processes than `hardware` asks for.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ:
        name, started = "WORLD_SIZE", int(os.environ["WORLD_SIZE"])
    elif int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        name, started = "SLURM_NTASKS", int(os.environ["SLURM_NTASKS"])
    else:  # a single process, also as Slurm or DeepSpeed names it: the others are started here
        return False
    if started != hardware.world_size:
        raise ValueError(
            f"hardware.devices={hardware.devices} on hardware.num_nodes={hardware.num_nodes} are "
            f"{hardware.world_size} processes, and {name}={started}: start as many tasks as there "
            "are devices, or give the numbers that were started"
        )
    if name == "SLURM_NTASKS":
        _place_by_slurm()
    return True


def _place_by_slurm() -> None:
    from lightning.pytorch.plugins.environments import SLURMEnvironment

    try:
        slurm = SLURMEnvironment()
    except RuntimeError as error:  # it knows which options of sbatch do not do
        raise ValueError(str(error)) from error
    os.environ |= {
        "RANK": str(slurm.global_rank()),
        "LOCAL_RANK": str(slurm.local_rank()),
        "WORLD_SIZE": str(slurm.world_size()),
        "MASTER_ADDR": slurm.main_address,
        "MASTER_PORT": str(slurm.main_port),
    }


def _start_others(hardware: HardwareConfig, folder: Path) -> list[subprocess.Popen[bytes]]:
    """Start this command once for each further device of this machine."""
    if hardware.num_nodes > 1:
        raise ValueError(
            f"hardware.num_nodes={hardware.num_nodes}: start one process a device on every node by "
            "torchrun or srun, see docs/scale.md"
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(hardware.world_size),
        "RANK": "0",
        "LOCAL_RANK": "0",
    }
    command = [*_this_command(), f"hydra.run.dir={_quoted(folder)}", "hydra.output_subdir=null"]
    parent = {CHILD: str(os.getpid())}
    return [
        subprocess.Popen(
            command, env=os.environ | parent | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank in range(1, hardware.world_size)
    ]


def _this_command() -> list[str]:
    spec = sys.modules["__main__"].__spec__
    program = [sys.argv[0]] if spec is None else ["-m", spec.name]
    return [sys.executable, *program, *sys.argv[1:]]


def _quoted(folder: Path) -> str:
    """The path as a value of Hydra's grammar."""
    escaped = str(folder.resolve()).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _join(hardware: HardwareConfig) -> None:
    if hardware.accelerator in ("gpu", "cuda"):
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(backend(hardware), timeout=timedelta(minutes=hardware.timeout_minutes))


def _first_folder(folder: Path) -> Path:
    told: list[Path] = [folder.resolve()]
    dist.broadcast_object_list(told)
    left = {".hydra", "train.log"}
    if told[0] != folder.resolve() and {one.name for one in folder.glob("*")} <= left:
        shutil.rmtree(folder, ignore_errors=True)
    return told[0]


def _keep_quiet() -> None:
    """Leave the log to the first process; errors of this one still show."""
    root = logging.getLogger()
    root.setLevel(logging.ERROR)
    for handler in [one for one in root.handlers if isinstance(one, logging.FileHandler)]:
        root.removeHandler(handler)


def _watch(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """End this process where another one failed and this one does not notice.

    A collective call may wait for a lost process until its time-out.
    """
    parent = os.environ.get(CHILD)
    while True:
        time.sleep(0.5)
        failed = _failed(children)
        lost = parent is not None and os.getppid() != int(parent)
        if failed or lost:
            break
    time.sleep(GRACE)
    if failed:
        sys.stderr.write(f"error: {failed}; the others are ended\n")
        sys.stderr.flush()
    ended = any(child.poll() == REQUEUE for child in children)  # by SIGTERM, outside a training
    for child in children:
        child.kill()
    os._exit(REQUEUE if ended else 1)


def _failed(children: Sequence[subprocess.Popen[bytes]], wait: float = 0.0) -> str:
    """Name the first child that has ended with an error; empty where there is none."""
    until = time.monotonic() + wait
    while True:
        for rank, child in enumerate(children, 1):
            code = child.poll()
            if code:
                how = f"with code {code}" if code > 0 else f"by {signal.Signals(-code).name}"
                return f"process {rank} of the run ended {how}"
        if time.monotonic() >= until:
            return ""
        time.sleep(0.1)


def _leave(children: Sequence[subprocess.Popen[bytes]]) -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
    for child in children:
        try:
            child.wait(GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
    if children:
        for name in (*RANK_VARIABLES[:2], "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)
