"""All settings of a run of this pipeline, in one value that can be handed around."""

from __future__ import annotations

from dataclasses import dataclass, replace

from core_rl.config import (
    CurriculumConfig,
    DoctorConfig,
    HardwareConfig,
    LoggerConfig,
    PathsConfig,
    RewardConfig,
    RolloutConfig,
    TrainerConfig,
)
from core_rl.loss_config import LossConfig
from omni_rl.config import OmniDataConfig, OmniModelConfig


@dataclass(frozen=True)
class Settings:
    """What the configuration groups of a run say."""

    model: OmniModelConfig
    data_mix: OmniDataConfig
    reward: RewardConfig
    curriculum: CurriculumConfig
    loss: LossConfig
    rollout: RolloutConfig
    trainer: TrainerConfig
    hardware: HardwareConfig
    logger: LoggerConfig
    paths: PathsConfig
    doctor: DoctorConfig

    def limited_model(self) -> OmniModelConfig:
        """The model with the prompt and completion limits of the rollout."""
        return replace(
            self.model,
            max_prompt=self.rollout.max_prompt,
            max_completion=self.rollout.max_completion,
        )
