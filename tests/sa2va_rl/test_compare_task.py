"""Which tables a comparison makes, decided before anything is learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sa2va_rl.compare_config import CompareConfig
from sa2va_rl.compare_runs import SeedResult
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
