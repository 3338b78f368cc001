"""All settings of a run of this pipeline, in one value that can be handed around."""

from __future__ import annotations

from dataclasses import dataclass, replace

from core_rl.config import RewardConfig
from core_rl.settings import LoopSettings
from omni_rl.config import OmniDataConfig, OmniModelConfig


@dataclass(frozen=True, kw_only=True)
class Settings(LoopSettings):
    """What the configuration groups of a run say."""

    model: OmniModelConfig
    data_mix: OmniDataConfig
    reward: RewardConfig

    def limited_model(self) -> OmniModelConfig:
        """The model with the prompt and completion limits of the rollout."""
        return replace(
            self.model,
            max_prompt=self.rollout.max_prompt,
            max_completion=self.rollout.max_completion,
        )
