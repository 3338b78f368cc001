"""The configuration groups that a run of any pipeline has, in one value."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    """What the loop learns by, where it runs and what it writes; a pipeline adds its own groups."""

    curriculum: CurriculumConfig
    loss: LossConfig
    rollout: RolloutConfig
    trainer: TrainerConfig
    hardware: HardwareConfig
    logger: LoggerConfig
    paths: PathsConfig
    doctor: DoctorConfig = field(default_factory=DoctorConfig)
