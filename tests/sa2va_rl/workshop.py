"""All settings of a run at their smallest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core_rl.config import (
    CurriculumConfig,
    HardwareConfig,
    LoggerConfig,
    PathsConfig,
    RolloutConfig,
    TrainerConfig,
)
from core_rl.loss_config import LossConfig
from sa2va_rl.config import (
    PPOConfig,
    RewardFitConfig,
    RewardNetConfig,
    Sa2VADataConfig,
    Sa2VAModelConfig,
    SelectorConfig,
)
from sa2va_rl.prompts import PROMPTS
from sa2va_rl.settings import Settings


def small_settings(cache: Path, **changes: Any) -> Settings:
    """Ten pictures under three prompts; `changes` are whole groups."""
    groups: dict[str, Any] = {
        "model": Sa2VAModelConfig(prompts=list(PROMPTS[:3])),
        "data_mix": Sa2VADataConfig(train=4, val=3, test=3, side=64),
        "reward_net": RewardNetConfig(side=32, width=4),
        "reward_fit": RewardFitConfig(epochs=1),
        "ppo": PPOConfig(total_steps=64, envs=2, n_steps=32, batch_size=32, hidden=[8]),
        "selector": SelectorConfig(hidden=[8]),
        "curriculum": CurriculumConfig(),
        "loss": LossConfig(),
        "rollout": RolloutConfig(),
        "trainer": TrainerConfig(progress=False),
        "hardware": HardwareConfig(),
        "logger": LoggerConfig(kind="none"),
        "paths": PathsConfig(cache=str(cache)),
    }
    return Settings(**(groups | changes))
