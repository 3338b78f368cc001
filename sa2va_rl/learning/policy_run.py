"""The inputs of one policy's training, whichever algorithm trains it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sa2va_rl.data.features import Standardiser
from sa2va_rl.rewards.verdicts import Verdicts
from sa2va_rl.settings import Settings


@dataclass(frozen=True)
class PolicyRun:
    """What a policy is trained from, and where it is written.

    Attributes:
        settings: of the run.
        train: scores of the training pictures.
        val: scores of the validation pictures, by which the best policy is chosen.
        standardiser: of the training pictures.
        seed: of weights, order and sampling.
        folder: of curves, checkpoints and `final_model`.
    """

    settings: Settings
    train: Verdicts
    val: Verdicts
    standardiser: Standardiser
    seed: int
    folder: Path
