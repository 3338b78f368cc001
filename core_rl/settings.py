"""The configuration groups that a run of any pipeline has, in one value."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from core_rl.config import (
    CurriculumConfig,
    DoctorConfig,
    HardwareConfig,
    LoggerConfig,
    PathsConfig,
    RolloutConfig,
    TrainerConfig,
)
from core_rl.loss_config import LossConfig


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """Settings of the loop, the machine and the output; a pipeline adds its own groups."""

    curriculum: CurriculumConfig
    loss: LossConfig
    rollout: RolloutConfig
    trainer: TrainerConfig
    hardware: HardwareConfig
    logger: LoggerConfig
    paths: PathsConfig
    doctor: DoctorConfig = field(default_factory=DoctorConfig)

    def side_by_side(self, jobs: int) -> Self:
        """Turn progress bars off if several of these jobs run at a time."""
        if min(jobs, self.trainer.workers) <= 1:
            return self
        return replace(self, trainer=replace(self.trainer, progress=False))
