"""Checkpoints of DeepSpeed: a folder with a file for each process, read by as many again."""

from __future__ import annotations

from pathlib import Path

from core_rl.config import HardwareConfig


def check_shards(resume: str | None, hardware: HardwareConfig) -> None:
    """Check that this run can read the checkpoint from which it goes on.

    Args:
        resume: the checkpoint itself, a file or DeepSpeed's folder.
        hardware: of this run.

    Raises:
        ValueError: it was written by another strategy, ZeRO stage or number of processes.
    """
    if resume is None:
        return
    wanted = hardware.zero_stage if hardware.strategy == "deepspeed" else 0
    stage, written = _stage(Path(resume)), _processes(Path(resume))
    alike = bool(stage) == bool(wanted) and (stage == 3) == (wanted == 3)
    if alike and (not stage or written == hardware.world_size):
        return
    here = f"{_strategy(wanted)} and {hardware.world_size} process(es)"
    there = _strategy(stage) + (f" and {written} process(es)" if stage else "")
    folder = Path(resume).parent
    whole = max(folder.glob("step-*"), default=folder / "best")
    raise ValueError(
        f"trainer.resume={resume}: written with {there}, and this run has {here}; resume with the "
        f"hardware it was written with, or start a new run from its weights by model.path={whole} "
        "(the optimiser's moments, the schedule and the KL reference then start anew)"
    )


def _stage(path: Path) -> int:
    """ZeRO stage of a checkpoint, 2 for 1 as well; 0 for a file."""
    if not path.is_dir():
        return 0
    return 3 if any(path.glob("checkpoint/zero_pp_rank_*_model_states.pt")) else 2


def _processes(path: Path) -> int:
    return len(list(path.glob("checkpoint/*_optim_states.pt")))


def _strategy(stage: int) -> str:
    return {0: "no DeepSpeed", 3: "ZeRO 3"}.get(stage, "ZeRO 1 or 2")
