"""One seed of Stage 4 and its controls."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core_rl.config import (
    CurriculumConfig,
    HardwareConfig,
    LoggerConfig,
    PathsConfig,
    RewardConfig,
    RolloutConfig,
    TrainerConfig,
)
from core_rl.curriculum import Curriculum
from core_rl.loss_config import LossConfig
from core_rl.optim import lr_factor
from omni_rl.config import OmniDataConfig, OmniModelConfig
from omni_rl.settings import Settings
from omni_rl.stage4 import supervision


@pytest.fixture
def settings(
    world: OmniDataConfig, cache: PathsConfig, sizes: TrainerConfig, tiny_config: OmniModelConfig
) -> Settings:
    return Settings(
        model=replace(tiny_config, warm_start="none"),
        data_mix=world,
        reward=RewardConfig(),
        curriculum=CurriculumConfig(),
        loss=LossConfig(),
        rollout=RolloutConfig(),
        trainer=replace(sizes, progress=False),
        hardware=HardwareConfig(),
        logger=LoggerConfig(kind="none"),
        paths=cache,
    )


def test_supervision_by_budget_has_its_rate_from_the_first_step(settings: Settings) -> None:
    trainer, phases = supervision(settings)
    curriculum = Curriculum.resolve(phases, 1, trainer.max_steps)
    for step in (0, 1, 300):
        assert lr_factor(step, curriculum, trainer.warmup, trainer.schedule) == 1.0
    assert trainer.lr == 0.5 * settings.model.warm.lr
