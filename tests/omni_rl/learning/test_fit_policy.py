"""What happens around the loop that fits a policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core_rl.config import DoctorConfig
from core_rl.objective.rewards import WeightedReward
from omni_rl.data.splits import Splits
from omni_rl.learning import fit_policy as learn
from omni_rl.learning.fit_policy import learn_by_reward
from omni_rl.policy.policy import OmniPolicy
from omni_rl.rewards.rules import Format
from omni_rl.settings import Settings


@pytest.mark.filterwarnings("ignore")  # Lightning on a run this short
def test_a_resumed_run_counts_the_processor_time_of_its_checkpoint(
    settings: Settings,
    splits: Splits,
    fresh_policy: Callable[..., OmniPolicy],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = iter(range(0, 10**6, 100))  # a clock that jumps ahead whenever it is read
    monkeypatch.setattr(learn, "cpu_seconds", lambda: float(next(now)))
    reward = WeightedReward({"format": Format()}, {"format": 1.0})

    def spent(steps: int, resume: str | None) -> float:
        trainer = replace(settings.trainer, max_steps=steps, checkpoint_every=1, resume=resume)
        run = replace(settings, trainer=trainer, doctor=DoctorConfig(enabled=False))
        return learn_by_reward(fresh_policy(), splits.train, [], run, reward, tmp_path, 0)

    first = spent(1, None)  # read at the start, for the checkpoint, at the end
    assert first == 200
    assert spent(2, str(tmp_path)) == 100 + 200


def test_a_fitted_policy_is_placed_again_and_restored_once_all_have_met(
    settings: Settings,
    splits: Splits,
    fresh_policy: Callable[..., OmniPolicy],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []

    def note(what: str) -> Callable[..., None]:
        return lambda *_, **__: done.append(what)

    for owner, name in (
        (learn, "fit"),
        (learn, "placed"),
        (learn, "wait_for_all"),
        (OmniPolicy, "restore"),
        (OmniPolicy, "save"),
    ):
        monkeypatch.setattr(owner, name, note(name))
    (tmp_path / "checkpoints" / "best").mkdir(parents=True)
    reward = WeightedReward({"format": Format()}, {"format": 1.0})
    learn_by_reward(fresh_policy(), splits.train, [], settings, reward, tmp_path, 0)
    assert done == ["fit", "placed", "wait_for_all", "restore", "save", "wait_for_all"]
