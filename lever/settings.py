"""All settings of a run of this pipeline, in one value that can be handed around."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core_rl.config import RewardConfig
from core_rl.settings import LoopSettings
from lever.config import LeverDataConfig
from lever.generation_config import AnswererConfig, BeamConfig, RlDataConfig
from lever.model_config import ChooseConfig, LearnConfig, LeverModelConfig, PipelineConfig


@dataclass(frozen=True, kw_only=True)
class Settings(LoopSettings):
    """What the configuration groups of a run say."""

    model: LeverModelConfig
    data_mix: LeverDataConfig
    answerer: AnswererConfig
    beams: BeamConfig
    rl_data: RlDataConfig
    learn: LearnConfig
    choose: ChooseConfig
    pipeline: PipelineConfig
    reward: RewardConfig

    @property
    def cache(self) -> Path:
        """Folder of answers, features, beam data, RL data and finished stages."""
        return Path(self.paths.cache) / "lever"
