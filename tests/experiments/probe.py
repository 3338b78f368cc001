"""A task that succeeds or fails as told, for the tests of the command line."""

from __future__ import annotations

import random
from pathlib import Path

from core_rl.config import TrainerConfig


def probe(behaviour: str, trainer: TrainerConfig, seed: int, folder: Path) -> dict[str, float]:
    """Return two metrics, or raise what `behaviour` says."""
    assert isinstance(trainer, TrainerConfig) and isinstance(folder, Path)
    if behaviour == "user_error":
        raise ValueError("data_mix.size=0: expected above 0")
    if behaviour == "no_file":
        raise FileNotFoundError("paths.data: no file data.json")
    if behaviour == "bug":
        raise RuntimeError("the two shapes differ")
    return {"lr": trainer.lr, "draw": random.random()}
