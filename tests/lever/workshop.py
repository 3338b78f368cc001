"""A workshop on a small generated world, with settings small enough to learn in seconds."""

from __future__ import annotations

from pathlib import Path

from core_rl.config import (
    CurriculumConfig,
    DoctorConfig,
    HardwareConfig,
    LoggerConfig,
    PathsConfig,
    PhaseConfig,
    PhaseKind,
    RewardConfig,
    RolloutConfig,
    Subset,
    TrainerConfig,
)
from core_rl.loss_config import KLConfig, KLKind, LossConfig, RatioLevel
from lever.config import LeverDataConfig
from lever.generation_config import AnswererConfig, BeamConfig, RlDataConfig
from lever.model_config import (
    ChooseConfig,
    FeatureConfig,
    LearnConfig,
    LeverModelConfig,
    PipelineConfig,
)
from lever.settings import Settings
from tests.lever.worlds import SMALL

SFT = CurriculumConfig([PhaseConfig(PhaseKind.rce, epochs=3, data="beams")])
RCE = CurriculumConfig([PhaseConfig(PhaseKind.rce, epochs=1, lr_scale=0.1, data="beam_scores")])
OFFLINE = CurriculumConfig(
    [
        PhaseConfig(PhaseKind.grpo, epochs=1, subset=Subset.contrast, data="stored"),
        PhaseConfig(PhaseKind.grpo, epochs=1, num_iterations=2, data="stored"),
    ]
)
REFRESH = CurriculumConfig([PhaseConfig(PhaseKind.grpo, epochs=2, num_iterations=2, data="fresh")])


def small_settings(cache: Path) -> Settings:
    """Everything at its smallest; the doctor stays away."""
    features = FeatureConfig(dims=6, directions=4, epochs=1)
    model = LeverModelConfig(features=features, batch_size=3)
    return Settings(
        model=model,
        data_mix=LeverDataConfig(world=SMALL, candidate_num=SMALL.pool_size),
        answerer=AnswererConfig(),
        beams=BeamConfig(beam_size=3),
        rl_data=RlDataConfig(num_beams=2, num_retrieval=2),
        learn=LearnConfig(),
        choose=ChooseConfig(),
        pipeline=PipelineConfig(SFT, RCE, OFFLINE, REFRESH),
        reward=RewardConfig({"soft": {"_target_": "lever.rewards.functions.Soft"}}, {"soft": 1.0}),
        curriculum=SFT,
        loss=LossConfig(
            ratio_level=RatioLevel.sequence_sum, kl=KLConfig(kind=KLKind.exact, weight=0.01)
        ),
        rollout=RolloutConfig(num_generations=4),
        trainer=TrainerConfig(lr=model.lr, batch_size=3, progress=False, log_every=1000),
        hardware=HardwareConfig(),
        logger=LoggerConfig(kind="none"),
        doctor=DoctorConfig(enabled=False),
        paths=PathsConfig(cache=str(cache)),
    )
