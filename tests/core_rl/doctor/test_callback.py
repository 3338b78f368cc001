"""The doctor in real runs of the loop: healthy ones pass unchanged, planted faults are named."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from core_rl.config import DoctorConfig, HardwareConfig, LoggerConfig, OnFailure
from core_rl.doctor.findings import UnhealthyError
from core_rl.loop.module import GroupPolicyModule
from core_rl.loss_config import KLConfig, LossConfig
from core_rl.objective.curriculum import Phase
from core_rl.types import Batch
from tests.core_rl import faulty_runs as faulty
from tests.core_rl.toy import (
    PathReward,
    ToyPolicy,
    forever,
    group_of,
    grpo,
    module_of,
    phases,
    rce,
    run,
    settings,
)

REWARD = PathReward([float(i) for i in range(9)])
STRICT = DoctorConfig(on_failure=OnFailure.abort, every=2, flat_groups=8)
TRAINER = settings()


def trained(
    folder: Path,
    policy: ToyPolicy | None = None,
    reward: Any = REWARD,
    doctor: DoctorConfig = STRICT,
    steps: int = 6,
    callbacks: Sequence[Callback] = (),
    module: Callable[..., GroupPolicyModule] = module_of,
    iterations: int = 1,
    **changes: Any,
) -> GroupPolicyModule:
    torch.manual_seed(0)
    made = module(
        policy or ToyPolicy(queries=3),
        reward,
        phases(grpo(steps, num_iterations=iterations)),
        **changes,
    )
    run(made, forever([0, 1, 2]), folder, callbacks=callbacks, doctor=doctor)
    return made


def rounds(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "health.json").read_text())["rounds"]
    return found


# -- healthy -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("iterations", [1, 2])
def test_a_healthy_run_is_left_alone(tmp_path: Path, seed: int, iterations: int) -> None:
    policy = ToyPolicy(queries=3, seed=seed)
    trained(tmp_path, policy, iterations=iterations)
    assert all(one["healthy"] for one in rounds(tmp_path))
    verdicts = {one["verdict"] for each in rounds(tmp_path) for one in each["findings"]}
    assert verdicts <= {"ok", "skipped"}


def test_supervised_phases_are_not_asked_for_contrast(tmp_path: Path) -> None:
    policy = ToyPolicy()
    module = module_of(policy, REWARD, phases(rce(6)))
    run(module, forever(group_of([[[0, 1]]], [[1.0]])), tmp_path, doctor=STRICT)
    assert all(one["healthy"] for one in rounds(tmp_path))


def test_the_run_is_the_same_with_and_without_the_doctor(tmp_path: Path) -> None:
    weights = [
        trained(tmp_path / str(on), doctor=DoctorConfig(enabled=on, every=1)).policy.logits.detach()
        for on in (True, False)
    ]
    assert torch.equal(*weights)
    assert (tmp_path / "True" / "health.json").exists()
    assert not (tmp_path / "False" / "health.json").exists()


def test_figures_are_logged_under_health(tmp_path: Path) -> None:
    module = module_of(ToyPolicy(queries=3), REWARD, phases(grpo(3)))
    run(module, forever([0, 1, 2]), tmp_path, logger=LoggerConfig(kind="csv"), doctor=STRICT)
    with (tmp_path / "csv" / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    names = {name for row in rows for name, value in row.items() if value}
    assert {"health/signal/ratio_gap", "health/gradient/norm", "health/reward/flat_share"} <= names


# -- planted faults ------------------------------------------------------------------------------


NO_KL = LossConfig(kl=KLConfig(weight=0.0))


@dataclass(frozen=True)
class Planted:
    name: str
    change: Callable[[], dict[str, Any]]
    check: str
    says: str


FAULTS = [
    Planted(
        "temperature mismatch",
        lambda: {"policy": faulty.Warmless(queries=3), "temperature": 0.6},
        "signal/ratio_gap",
        "temperature",
    ),
    Planted("dropout", lambda: {"policy": faulty.Noisy(queries=3)}, "signal/repeatable", "dropout"),
    Planted(
        "first query for all",
        lambda: {"policy": faulty.FirstQueryOnly(queries=3)},
        "signal/alone_gap",
        "first query is reused",
    ),
    Planted(
        "aliased reference",
        lambda: {"policy": faulty.Aliased(queries=3)},
        "reference/aliased",
        "shares",
    ),
    Planted(
        "trainable reference",
        lambda: {"policy": faulty.LearningReference(queries=3)},
        "reference/trainable",
        "require gradients",
    ),
    Planted(
        "reference that follows",
        lambda: {"policy": faulty.Mirrors(queries=3)},
        "reference/stays",
        "follows the policy",
    ),
    Planted(
        "reference with other weights",
        lambda: {"policy": faulty.OtherReference(queries=3)},
        "reference/gap_at_start",
        "other weights",
    ),
    Planted(
        "NaN weights",
        lambda: {"policy": faulty.broken(ToyPolicy(queries=3))},
        "weights/not_finite",
        "NaN",
    ),
    Planted(
        "frozen parameters",
        lambda: {"callbacks": [faulty.Freezes()]},
        "weights/trainable_share",
        "frozen",
    ),
    Planted("drawing breaks", lambda: {"policy": faulty.Fails(queries=3)}, "gate/runs", "tower"),
    Planted(
        "stale rollout weights",
        lambda: {"sampler": faulty.StaleSampler(8)},
        "signal/ratio_gap",
        "stale rollout weights",
    ),
    Planted(
        "optimiser of a copy",
        lambda: {"module": faulty.built(faulty.OptimisesACopy)},
        "optimizer/missing",
        "not in the optimiser",
    ),
    Planted(
        "weights stand still",
        lambda: {"module": faulty.built(faulty.StandsStill)},
        "weights/changed_share",
        "do not change",
    ),
    Planted(
        "scheduler stuck at 0",
        lambda: {"module": faulty.built(faulty.SchedulesNothing)},
        "optimizer/learning_rate",
        "the scheduler holds the learning rate at 0",
    ),
    Planted(
        "old log-probs recomputed",
        lambda: {"module": faulty.built(faulty.ScoresOldAgain), "iterations": 2, "loss": NO_KL},
        "signal/old_logp_changed",
        "recomputed",
    ),
    Planted(
        "advantages lost",
        lambda: {"module": faulty.built(faulty.LosesAdvantages), "loss": NO_KL},
        "gradient/norm",
        "advantages or masks are 0",
    ),
    Planted(
        "optimiser climbs the loss",
        lambda: {"module": faulty.built(faulty.ClimbsTheLoss)},
        "signal/moves_to_reward",
        "wrong sign",
    ),
    Planted(
        "loss not finite", lambda: {"policy": faulty.Infinite(queries=3)}, "loss/finite", "NaN"
    ),
    Planted(
        "constant reward",
        lambda: {"reward": PathReward([0.1] * 9)},
        "reward/flat_share",
        "path is 0.1 everywhere",
    ),
    Planted(
        "garbled completions",
        lambda: {"policy": faulty.garbled(), "reward": PathReward([0.1, 0.2, 0.3] * 3**11)},
        "degeneration/top_share",
        "garbled",
    ),
]


@pytest.mark.parametrize("planted", FAULTS, ids=lambda planted: planted.name)
def test_a_planted_fault_ends_the_run_with_its_cause(planted: Planted, tmp_path: Path) -> None:
    with pytest.raises(UnhealthyError, match=planted.says) as error:
        trained(tmp_path, **planted.change())
    causes = {one.check: one.cause for one in error.value.findings}
    assert planted.says in causes[planted.check]
    assert not rounds(tmp_path)[-1]["healthy"]


def changed_share(folder: Path) -> set[str]:
    return {
        one["verdict"]
        for each in rounds(folder)
        for one in each["findings"]
        if one["check"] == "weights/changed_share"
    }


def test_half_precision_weights_move_by_their_masters(tmp_path: Path) -> None:
    """Without masters most of an update is lost to rounding, which is warned of."""
    lost, kept = tmp_path / "lost", tmp_path / "kept"
    policy = ToyPolicy(queries=3).to(torch.bfloat16)
    trained(lost, policy, module=faulty.built(faulty.RoundsAway), steps=2)
    assert changed_share(lost) == {"warn"}
    trained(kept, ToyPolicy(queries=3).to(torch.bfloat16), steps=2)
    assert changed_share(kept) == {"ok"}


@pytest.mark.parametrize("every", [1000, 5], ids=["between rounds", "at a round"])
def test_what_is_not_finite_ends_a_run_at_its_step_and_not_at_the_next_round(
    tmp_path: Path, every: int
) -> None:
    """Also where failures so late only warn: nothing can be learned with NaN weights."""
    doctor = DoctorConfig(every=every)
    with pytest.raises(UnhealthyError) as error:
        trained(tmp_path, doctor=doctor, steps=8, callbacks=[faulty.Poisons(4, weights=True)])
    found = {one.check for one in error.value.findings}
    assert {"gradient/finite", "weights/not_finite"} <= found
    assert [one["step"] for one in rounds(tmp_path)] == [0, 1, 2, 5]


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs DeepSpeed")
@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_under_deepspeed_the_rate_and_the_weights_are_checked(
    tmp_path: Path, precision: str
) -> None:
    """DeepSpeed holds gradients and masters in shards of its own."""
    machine = HardwareConfig(strategy="deepspeed", precision=precision)
    module = module_of(ToyPolicy(queries=3), REWARD, phases(grpo(2)))
    run(module, forever([0, 1, 2]), tmp_path, hardware=machine, doctor=STRICT)
    found = [
        {one["check"]: one["verdict"] for one in each["findings"]} for each in rounds(tmp_path)
    ]
    assert [one["optimizer/learning_rate"] for one in found] == ["ok"] * 3
    assert [one["weights/changed_share"] for one in found[1:]] == ["ok"] * 2
    stuck = faulty.built(faulty.SchedulesNothing)(ToyPolicy(queries=3), REWARD, phases(grpo(2)))
    with pytest.raises(UnhealthyError, match="the scheduler holds the learning rate at 0"):
        run(stuck, forever([0, 1, 2]), tmp_path, hardware=machine, doctor=STRICT)


# -- what is done about it -----------------------------------------------------------------------


def test_a_warning_lets_the_run_go_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    doctor = DoctorConfig(on_failure=OnFailure.warn)
    policy = faulty.Aliased(queries=3)
    trained(tmp_path, policy, doctor=doctor)
    assert "reference/aliased" in caplog.text
    assert "frozen_copy" in caplog.text


def test_by_default_only_the_first_step_stops_a_run(tmp_path: Path) -> None:
    flat = PathReward([0.1] * 9)
    # Two steps' worth of groups are too few for a verdict, so it falls later than the first step.
    trained(tmp_path, reward=flat, doctor=DoctorConfig(every=2, flat_groups=8))
    assert [one["healthy"] for one in rounds(tmp_path)] == [True, True, True, False, True]
    with pytest.raises(UnhealthyError, match="everywhere"):
        trained(tmp_path, reward=flat, doctor=DoctorConfig(flat_groups=3))
    with pytest.raises(UnhealthyError, match="shares"):
        trained(tmp_path, policy=faulty.Aliased(queries=3), doctor=DoctorConfig())


def test_a_batch_of_one_is_filled_up_with_held_out_queries(tmp_path: Path) -> None:
    module = module_of(faulty.FirstQueryOnly(queries=3), REWARD, phases(grpo(2)))
    with pytest.raises(UnhealthyError, match="reused"):
        run(module, forever([0]), tmp_path, held_out=[[1, 2]], doctor=STRICT)


def test_every_phase_has_its_gate(tmp_path: Path) -> None:
    """Supervised steps draw nothing, so what is wrong with drawing shows at the next phase."""
    policy = faulty.FirstQueryOnly(queries=3)
    module = module_of(policy, REWARD, phases(rce(2), grpo(2)))
    stored = group_of([[[0, 1], [1, 1]]], [[1.0, 0.0]])

    def stream(phase: Phase) -> Iterator[Batch]:
        return itertools.repeat([0, 1, 2] if phase.index else stored)

    with pytest.raises(UnhealthyError, match="reused"):
        run(module, stream, tmp_path, doctor=STRICT)
    assert rounds(tmp_path)[-1]["step"] == 2


@pytest.mark.parametrize("seed", range(3))
def test_momentum_of_an_earlier_phase_is_no_fault(seed: int, tmp_path: Path) -> None:
    """Supervision of the worst path, then rewards: the first updates still go the old way."""
    module = module_of(ToyPolicy(queries=3, seed=seed), REWARD, phases(rce(4), grpo(4)))
    worst = group_of([[[0, 0]]], [[1.0]])

    def stream(phase: Phase) -> Iterator[Batch]:
        return itertools.repeat([0, 1, 2] if phase.index else worst)

    run(module, stream, tmp_path, doctor=STRICT)
    assert all(one["healthy"] for one in rounds(tmp_path))
