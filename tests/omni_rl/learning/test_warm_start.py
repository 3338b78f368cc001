"""The start that the tiny thinker is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from omni_rl.config import WarmStartConfig
from omni_rl.learning import warm_start
from omni_rl.learning.fit_policy import Training
from omni_rl.learning.warm_start import check_gate, make_warm_start
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


PERCEIVES = {"colour": 1.0, "voice": 0.95}


@pytest.mark.parametrize("accuracy", [0.3, 0.35, 0.5, 0.65, 0.67, 0.72])
def test_the_chance_of_the_gates_clips_refuses_no_start(accuracy: float) -> None:
    """With 160 clips a start of .65 is measured at .72 once in forty times."""
    check_gate(PERCEIVES, accuracy, WarmStartConfig())


@pytest.mark.parametrize(
    ("shares", "accuracy", "said"),
    [
        ({"colour": 1.0, "voice": 0.5}, 0.5, "too weak.*model.warm.perception_rounds=4"),
        (PERCEIVES, 0.2, "too weak.*model.warm.habit_steps=50"),
        (PERCEIVES, 0.8, "nothing to learn.*model.warm.habit_rounds=8"),
    ],
)
def test_the_gate_says_which_limit_is_missed(
    shares: dict[str, float], accuracy: float, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        check_gate(shares, accuracy, WarmStartConfig())
