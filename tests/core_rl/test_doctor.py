"""The doctor in real runs of the loop: healthy ones pass unchanged, planted faults are named."""

from __future__ import annotations

import copy
import csv
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from core_rl.config import DoctorConfig, LoggerConfig, OnFailure
from core_rl.curriculum import Phase
from core_rl.health import UnhealthyError
from core_rl.loss_config import KLConfig, LossConfig
from core_rl.module import Batch, FreshSampler, GroupPolicyModule
from core_rl.types import Actions, Group, Policy, StepLogProbs
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


class Warmless(ToyPolicy):
    """Scores without the temperature."""

    def log_probs(self, prompt: Tensor, actions: Actions, temperature: float = 1.0) -> StepLogProbs:
        return super().log_probs(prompt, actions, 1.0)


class Noisy(ToyPolicy):
    """Dropout in scoring."""

    def log_probs(self, prompt: Tensor, actions: Actions, temperature: float = 1.0) -> StepLogProbs:
        scores = super().log_probs(prompt, actions, temperature)
        return StepLogProbs(scores.logp_BGT + 0.05 * torch.randn_like(scores.logp_BGT))


class FirstQueryOnly(ToyPolicy):
    """The first query of a batch stands for all."""

    def encode(self, queries: Sequence[int]) -> Tensor:
        return super().encode([queries[0]] * len(queries))


class Aliased(ToyPolicy):
    """The reference is the policy."""

    def frozen_copy(self) -> ToyPolicy:
        return self


class OtherReference(ToyPolicy):
    """The reference comes from elsewhere."""

    def frozen_copy(self) -> ToyPolicy:
        return ToyPolicy(*self.logits.shape[::2], seed=99).requires_grad_(False)


class Mirrors(ToyPolicy):
    """A reference with weights of its own, taken from the policy before every use."""

    followed: list[ToyPolicy]

    def frozen_copy(self) -> ToyPolicy:
        reference = copy.deepcopy(self).requires_grad_(False)
        reference.followed = [self]
        return reference

    def encode(self, queries: Sequence[int]) -> Tensor:
        for policy in getattr(self, "followed", []):
            self.load_state_dict(policy.state_dict())
        return super().encode(queries)


class LearningReference(ToyPolicy):
    """The reference was not frozen."""

    def frozen_copy(self) -> ToyPolicy:
        return copy.deepcopy(self)


class Fails(ToyPolicy):
    """Drawing breaks."""

    def sample(self, prompt: Tensor, num_candidates: int, temperature: float = 1.0) -> Actions:
        raise RuntimeError("shape mismatch in the tower")


class Infinite(ToyPolicy):
    """Log-probs of the loss are NaN, those drawn at are not."""

    def log_probs(self, prompt: Tensor, actions: Actions, temperature: float = 1.0) -> StepLogProbs:
        scores = super().log_probs(prompt, actions, temperature)
        if torch.is_grad_enabled():
            return StepLogProbs(scores.logp_BGT * torch.nan)
        return scores


class StaleSampler(FreshSampler):
    """Candidates come from a copy that was never given the weights."""

    old: ToyPolicy | None = None

    def __call__(
        self, policy: Policy, prompt: Any, queries: Sequence[int], temperature: float
    ) -> Actions:
        self.old = self.old or ToyPolicy(queries=3, seed=7)
        return super().__call__(self.old, self.old.encode(queries), queries, temperature)


class OptimisesACopy(GroupPolicyModule):
    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(copy.deepcopy(self.policy).parameters(), lr=0.05)


class StandsStill(GroupPolicyModule):
    """A rate that rounds away."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.policy.parameters(), lr=1e-30)


class ScoresOldAgain(GroupPolicyModule):
    """Old log-probs are taken from the updated policy, as `logp.detach()` would give them."""

    def transfer_batch_to_device(self, batch: Batch, device: Any, dataloader_idx: int) -> Batch:
        assert isinstance(batch, Group)
        with torch.no_grad():
            logp = self.policy.log_probs(self.policy.encode(batch.queries), batch.actions).logp_BGT
        return replace(batch, actions=replace(batch.actions, logp_BGT=logp))


class LosesAdvantages(GroupPolicyModule):
    def judge(self, queries: Sequence[int], actions: Actions) -> Group:
        group = super().judge(queries, actions)
        return replace(group, advantages_BGT=torch.zeros_like(group.advantages_BGT))


class ClimbsTheLoss(GroupPolicyModule):
    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.policy.parameters(), lr=0.05, maximize=True)


class Freezes(Callback):
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.requires_grad_(False)


def built(kind: type[GroupPolicyModule]) -> Callable[..., GroupPolicyModule]:
    """As `module_of`, of another class."""

    def make(*args: Any, **kwargs: Any) -> GroupPolicyModule:
        module = module_of(*args, **kwargs)
        module.__class__ = kind
        return module

    return make


def broken(policy: ToyPolicy) -> ToyPolicy:
    policy.logits.data[0, 0, 0] = torch.nan
    return policy


def garbled() -> ToyPolicy:
    """One option again and again."""
    policy = ToyPolicy(queries=3, steps=12)
    policy.logits.data[..., 1] += 6.0
    return policy


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
        lambda: {"policy": Warmless(queries=3), "temperature": 0.6},
        "signal/ratio_gap",
        "temperature",
    ),
    Planted("dropout", lambda: {"policy": Noisy(queries=3)}, "signal/repeatable", "dropout"),
    Planted(
        "first query for all",
        lambda: {"policy": FirstQueryOnly(queries=3)},
        "signal/alone_gap",
        "first query is reused",
    ),
    Planted(
        "aliased reference", lambda: {"policy": Aliased(queries=3)}, "reference/aliased", "shares"
    ),
    Planted(
        "trainable reference",
        lambda: {"policy": LearningReference(queries=3)},
        "reference/trainable",
        "require gradients",
    ),
    Planted(
        "reference that follows",
        lambda: {"policy": Mirrors(queries=3)},
        "reference/stays",
        "follows the policy",
    ),
    Planted(
        "reference with other weights",
        lambda: {"policy": OtherReference(queries=3)},
        "reference/gap_at_start",
        "other weights",
    ),
    Planted(
        "NaN weights",
        lambda: {"policy": broken(ToyPolicy(queries=3))},
        "weights/not_finite",
        "NaN",
    ),
    Planted(
        "frozen parameters", lambda: {"callbacks": [Freezes()]}, "weights/trainable_share", "frozen"
    ),
    Planted("drawing breaks", lambda: {"policy": Fails(queries=3)}, "gate/runs", "tower"),
    Planted(
        "stale rollout weights",
        lambda: {"sampler": StaleSampler(8)},
        "signal/ratio_gap",
        "stale rollout weights",
    ),
    Planted(
        "optimiser of a copy",
        lambda: {"module": built(OptimisesACopy)},
        "optimizer/missing",
        "not in the optimiser",
    ),
    Planted(
        "weights stand still",
        lambda: {"module": built(StandsStill)},
        "weights/changed_share",
        "do not change",
    ),
    Planted(
        "old log-probs recomputed",
        lambda: {"module": built(ScoresOldAgain), "iterations": 2, "loss": NO_KL},
        "signal/old_logp_changed",
        "recomputed",
    ),
    Planted(
        "advantages lost",
        lambda: {"module": built(LosesAdvantages), "loss": NO_KL},
        "gradient/norm",
        "advantages or masks are 0",
    ),
    Planted(
        "optimiser climbs the loss",
        lambda: {"module": built(ClimbsTheLoss)},
        "signal/moves_to_reward",
        "wrong sign",
    ),
    Planted("loss not finite", lambda: {"policy": Infinite(queries=3)}, "loss/finite", "NaN"),
    Planted(
        "constant reward",
        lambda: {"reward": PathReward([0.1] * 9)},
        "reward/flat_share",
        "path is 0.1 everywhere",
    ),
    Planted(
        "garbled completions",
        lambda: {"policy": garbled(), "reward": PathReward([0.1, 0.2, 0.3] * 3**11)},
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


# -- what is done about it -----------------------------------------------------------------------


def test_a_warning_lets_the_run_go_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    doctor = DoctorConfig(on_failure=OnFailure.warn)
    policy = Aliased(queries=3)
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
        trained(tmp_path, policy=Aliased(queries=3), doctor=DoctorConfig())


def test_a_batch_of_one_is_filled_up_with_held_out_queries(tmp_path: Path) -> None:
    module = module_of(FirstQueryOnly(queries=3), REWARD, phases(grpo(2)))
    with pytest.raises(UnhealthyError, match="reused"):
        run(module, forever([0]), tmp_path, held_out=[[1, 2]], doctor=STRICT)


def test_every_phase_has_its_gate(tmp_path: Path) -> None:
    """Supervised steps draw nothing, so what is wrong with drawing shows at the next phase."""
    policy = FirstQueryOnly(queries=3)
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
