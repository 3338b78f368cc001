"""What `trainer.resume` does in each experiment, said before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core_rl.config import TrainerConfig
from sa2va_rl.compare_config import CompareConfig
from sa2va_rl.config import CompareSizes
from sa2va_rl.tasks.compare import compare_methods
from sa2va_rl.tasks.policy import grpo, ppo
from sa2va_rl.tasks.reward_net import reward_net
from sa2va_rl.tasks.run import run
from sa2va_rl.tasks.segment import segment
from tests.sa2va_rl.workshop import small_settings

COMPARE: dict[str, Any] = {"compare": CompareConfig()}


def groups(folder: Path) -> dict[str, Any]:
    trainer = TrainerConfig(progress=False, resume=str(folder / "run"))
    return vars(small_settings(folder / "cache", trainer=trainer))


@pytest.mark.parametrize(
    ("task", "more"),
    [
        (reward_net, {}),
        (compare_methods, COMPARE),
        (run, {**COMPARE, "compare_sizes": CompareSizes()}),
        (segment, {"image": "one.png", "policy": None}),
    ],
)
def test_stages_go_on_by_themselves(
    task: Callable[..., Any], more: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"trainer\.resume=.*reuses finished parts"):
        task(tmp_path, 0, **more, **groups(tmp_path))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("task", [ppo, grpo])
def test_a_policy_goes_on_from_what_is_there(task: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"trainer\.resume=.*run: no "):
        task(tmp_path, 0, **groups(tmp_path))
    assert not (tmp_path / "cache").exists(), "no reward network was trained before"
