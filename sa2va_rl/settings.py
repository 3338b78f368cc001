"""All settings of a run of this pipeline, in one value that can be handed around."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core_rl.settings import LoopSettings
from sa2va_rl.config import (
    PPOConfig,
    RewardFitConfig,
    RewardNetConfig,
    Sa2VADataConfig,
    Sa2VAModelConfig,
    SelectorConfig,
)
from sa2va_rl.prompts import PROMPTS, check_prompts


@dataclass(frozen=True, kw_only=True)
class Settings(LoopSettings):
    """What the configuration groups of a run say."""

    model: Sa2VAModelConfig
    data_mix: Sa2VADataConfig
    reward_net: RewardNetConfig
    reward_fit: RewardFitConfig
    ppo: PPOConfig
    selector: SelectorConfig

    @property
    def prompts(self) -> tuple[str, ...]:
        """What a policy chooses among, in the order of its actions.

        Raises:
            ValueError: fewer than two, or one that is empty or repeated.
        """
        return check_prompts(self.model.prompts or PROMPTS)

    @property
    def cache(self) -> Path:
        """Folder of masks and finished stages."""
        return Path(self.paths.cache) / "sa2va"

    def refuse_resume(self) -> None:
        """Refuse `trainer.resume` where every part is a stage.

        Raises:
            ValueError: it is set.
        """
        if self.trainer.resume is not None:
            raise ValueError(
                f"trainer.resume={self.trainer.resume}: this experiment finds finished parts again "
                f"by itself in paths.cache={self.paths.cache}, and goes on with a part that was "
                "interrupted; leave it null"
            )
