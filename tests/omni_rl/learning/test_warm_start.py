"""The start that the tiny thinker is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from omni_rl.config import WarmStartConfig
from omni_rl.learning import warm_start
from omni_rl.learning.fit_policy import Training
from omni_rl.learning.warm_start import make_warm_start
from omni_rl.settings import Settings


def test_one_process_writes_a_warm_start_and_the_others_wait_for_it(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[bool] = []
    monkeypatch.setattr(Training, "by_example", lambda *_: None)
    monkeypatch.setattr(Training, "keep_best", lambda *_: None)
    monkeypatch.setattr(
        warm_start, "wait_for_all", lambda: met.append((tmp_path / "start").exists())
    )
    warm = WarmStartConfig(clips=4, gate_clips=4, perception_rounds=1, habit_rounds=1)
    small = replace(settings, model=replace(settings.model, warm=warm))
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        make_warm_start(small, 0, tmp_path / "start")
    assert met == [False, True]
