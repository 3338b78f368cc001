"""A small generated world and an untrained thinker over it, made once for all tests that ask."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from core_rl.config import (
    CurriculumConfig,
    HardwareConfig,
    LoggerConfig,
    PathsConfig,
    RewardConfig,
    RolloutConfig,
    TrainerConfig,
)
from core_rl.loss_config import LossConfig
from omni_rl.config import OmniDataConfig, OmniModelConfig
from omni_rl.data.record import Record
from omni_rl.data.splits import Splits, load_splits
from omni_rl.policy.policy import OmniPolicy, untrained_policy
from omni_rl.settings import Settings
from tests.omni_rl.small_world import small_data, small_model


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask no hub: the environment may have been read before the tests set it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def world() -> OmniDataConfig:
    """The embedded mix, ten records of it."""
    return small_data()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> PathsConfig:
    return PathsConfig(cache=str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def sizes() -> TrainerConfig:
    return TrainerConfig(val_size=4, test_size=10)


@pytest.fixture(scope="session")
def splits(world: OmniDataConfig, sizes: TrainerConfig, cache: PathsConfig) -> Splits:
    return load_splits(world, sizes, cache, seed=0)


@pytest.fixture(scope="session")
def records(splits: Splits) -> list[Record]:
    """One record of each source and an instruction: prompts of unlike length."""
    firsts = {record.source: record for record in reversed(splits.test)}
    return [firsts[name] for name in ("social_iq", "instruction", "emer", "video_r1")]


@pytest.fixture(scope="session")
def tiny_config() -> OmniModelConfig:
    return small_model()


@pytest.fixture(scope="session")
def fresh_policy(tiny_config: OmniModelConfig) -> Callable[..., OmniPolicy]:
    """Build untrained policies; `together` interleaves video and sound, `early` stops soon."""
    start = untrained_policy(tiny_config, seed=0)

    def build(
        together: bool = False, early: bool = True, spans: tuple[str, ...] = ()
    ) -> OmniPolicy:
        media = replace(tiny_config.media, use_audio_in_video=together)
        config = replace(tiny_config, media=media)
        policy = OmniPolicy(copy.deepcopy(start.model), start.processor, config, spans)
        if early:  # a quarter of the words end a completion, so that untrained ones are ragged
            policy.stop_ids = torch.cat([policy.stop_ids, torch.arange(0, 480, 4)])
        return policy

    return build


@pytest.fixture
def settings(
    world: OmniDataConfig, cache: PathsConfig, sizes: TrainerConfig, tiny_config: OmniModelConfig
) -> Settings:
    """All groups of a small run from an untrained thinker."""
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
