"""The program of `test_processes.py`: two processes that meet, one of which may fail."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from core_rl.config import HardwareConfig
from core_rl.hardware import over_ranks
from core_rl.run.processes import together


def main(mode: str, folder: Path) -> None:
    logging.basicConfig(level=logging.INFO)
    hardware = HardwareConfig(devices=2, strategy="ddp", timeout_minutes=2.0)
    mine = folder / f"own-{os.getpid()}" if "TORCHELASTIC_RUN_ID" in os.environ else folder
    mine.mkdir(parents=True, exist_ok=True)
    with together(hardware, mine) as shared:
        rank = dist.get_rank()
        logging.info("told once")
        if mode == f"raise{rank}":
            raise ValueError("a reward that fails")
        if mode == f"kill{rank}":
            os.kill(os.getpid(), signal.SIGKILL)
        if mode == f"exit{rank}":
            sys.exit(7)
        squares = over_ranks(range(5), lambda some: [one * one for one in some])
        total = torch.ones(1)
        dist.all_reduce(total)
        (shared / f"rank-{rank}").write_text(f"{squares} {int(total)}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
