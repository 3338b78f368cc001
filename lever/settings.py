"""The settings of a run of this pipeline as one value."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from core_rl.config import HardwareConfig, PathsConfig, RewardConfig
from core_rl.settings import LoopSettings
from lever.config import LeverDataConfig
from lever.generation_config import AnswererConfig, BeamConfig, RlDataConfig
from lever.model_config import ChooseConfig, LearnConfig, LeverModelConfig, PipelineConfig


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """The configuration groups of beam data and RL data."""

    data_mix: LeverDataConfig
    answerer: AnswererConfig
    beams: BeamConfig
    hardware: HardwareConfig
    paths: PathsConfig
    model: LeverModelConfig = field(default_factory=LeverModelConfig)
    rl_data: RlDataConfig = field(default_factory=RlDataConfig)

    @property
    def cache(self) -> Path:
        """Folder of answers, features, beam data, RL data and finished stages."""
        return Path(self.paths.cache) / "lever"


@dataclass(frozen=True, kw_only=True)
class Settings(DataSettings, LoopSettings):
    """The configuration groups of a training or evaluation."""

    learn: LearnConfig
    choose: ChooseConfig
    pipeline: PipelineConfig
    reward: RewardConfig
