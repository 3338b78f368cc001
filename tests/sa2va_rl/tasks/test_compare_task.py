"""Which tables a comparison makes, decided before anything is learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sa2va_rl.compare_config import CompareConfig
from sa2va_rl.config import (
    EnvConfig,
    PPOConfig,
    RewardFitConfig,
    RewardMode,
    Sa2VADataConfig,
    Source,
)
from sa2va_rl.results.seed_run import SeedResult, check_comparison
from sa2va_rl.tasks import compare
from tests.sa2va_rl.workshop import small_settings


def test_every_seed_has_the_main_table_whatever_its_number_of_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Films differ in length: seeds of the same files need not have as many pictures."""
    asked: dict[tuple[int, int], bool] = {}

    def recorded(_: Any, __: Any, seed: int, size: int, main: bool) -> SeedResult:
        asked[seed, size] = main
        return SeedResult(pd.DataFrame(), pd.DataFrame(), {})

    monkeypatch.setattr(compare, "run_seed", recorded)
    compare.run_all(small_settings(tmp_path), CompareConfig(), [1, 2], [12, 4], tmp_path)
    assert asked == {(1, 12): True, (2, 12): True, (1, 4): False, (2, 4): False}


def test_the_published_settings_do_not_pass_for_tuned_ones(tmp_path: Path) -> None:
    by_truth = PPOConfig(name="mine", env=EnvConfig(reward=RewardMode.gt_dice))
    for ppo in (PPOConfig(), PPOConfig(total_steps=640), by_truth):
        with pytest.raises(ValueError, match=rf"ppo={ppo.name}: these are the published run's"):
            check_comparison(small_settings(tmp_path, ppo=ppo), 1)
    check_comparison(small_settings(tmp_path, ppo=PPOConfig(lr=1e-3)), 1)


def films(folder: Path, masks: bool = True) -> Sa2VADataConfig:
    """Four films of one picture, the last of another size."""
    for name, grey in (("images", 9), ("masks", 255)):
        (folder / name).mkdir()
        for film in range(4):
            size = (80 if film == 3 else 64, 64)
            picture = Image.fromarray(np.full(size, grey, np.uint8))
            picture.save(folder / name / f"film{film}-1.png")
    return Sa2VADataConfig(
        source=Source.folders,
        path=str(folder / "images"),
        masks=str(folder / "masks") if masks else None,
        train=None,
    )


def test_pictures_without_masks_are_refused_at_the_start(tmp_path: Path) -> None:
    """A judge that was brought along needs no masks; the tables do."""
    settings = small_settings(
        tmp_path,
        data_mix=films(tmp_path, masks=False),
        reward_fit=RewardFitConfig(path=str(tmp_path / "judge")),
    )
    with pytest.raises(ValueError, match=r"data_mix\.masks=None: film\d-1\.png has no mask"):
        check_comparison(settings, 1)


def test_pictures_of_different_sizes_are_refused_at_the_start(tmp_path: Path) -> None:
    data = films(tmp_path)
    settings = small_settings(tmp_path, data_mix=data)
    with pytest.raises(ValueError, match=r"is 64 x (64|80) pixels, film.*bring pictures and masks"):
        check_comparison(settings, 1)
    (tmp_path / "images" / "film3-1.png").unlink()
    check_comparison(settings, 1)
