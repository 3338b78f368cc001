"""All settings of one run of this pipeline, as one value."""

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
    """The configuration groups of a run."""

    model: Sa2VAModelConfig
    data_mix: Sa2VADataConfig
    reward_net: RewardNetConfig
    reward_fit: RewardFitConfig
    ppo: PPOConfig
    selector: SelectorConfig

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts that a policy chooses among, in the order of its actions.

        Raises:
            ValueError: fewer than two prompts, or one that is empty or repeated.
        """
        return check_prompts(self.model.prompts or PROMPTS)

    @property
    def cache(self) -> Path:
        """Folder of stored masks and finished stages."""
        return Path(self.paths.cache) / "sa2va"

    def refuse_resume(self) -> None:
        """Refuse `trainer.resume` in experiments whose parts are all stages.

        Raises:
            ValueError: `trainer.resume` is set.
        """
        if self.trainer.resume is not None:
            raise ValueError(
                f"trainer.resume={self.trainer.resume}: this experiment reuses finished parts in "
                f"paths.cache={self.paths.cache} and continues an interrupted part by itself; "
                "leave it null"
            )
