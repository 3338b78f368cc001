"""The loop over a policy that can be enumerated: learning, phases, reuse, validation."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from core_rl.config import HardwareConfig, PhaseConfig
from core_rl.loop.module import FreshSampler, GroupPolicyModule
from core_rl.loss_config import AdvantageConfig, FlatGroups, KLConfig, LossConfig
from core_rl.objective.curriculum import Curriculum, Phase
from core_rl.types import Actions, Batch
from tests.core_rl.toy import (
    PathReward,
    Recorder,
    ToyPolicy,
    expected_reward,
    forever,
    group_of,
    grpo,
    module_of,
    phases,
    rce,
    run,
    settings,
)

REWARDS = [0.0, 0.2, 0.1, 0.0, 1.0, 0.3, 0.1, 0.4, 0.2]  # of the 9 paths of 2 steps of 3 options
SAME_ROLLOUT = 1e-4  # largest |log ratio| between sampler and learner, fp32


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# -- learning ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "loss"),
    [
        (grpo(30), LossConfig()),
        (grpo(30, num_iterations=3), LossConfig(eps_high=0.28)),
    ],
    ids=["fresh", "reused"],
)
def test_grpo_raises_the_expected_reward(
    phase: PhaseConfig, loss: LossConfig, tmp_path: Path
) -> None:
    policy, reward = ToyPolicy(), PathReward(REWARDS)
    before = expected_reward(policy, reward).item()
    module = module_of(policy, reward, phases(phase), loss, settings(lr=0.2))
    run(module, forever([0] * 8), tmp_path)
    assert before < 0.2
    assert expected_reward(policy, reward).item() > 0.75


def test_rce_on_its_own_candidates_raises_the_expected_reward(tmp_path: Path) -> None:
    policy, reward = ToyPolicy(), PathReward(REWARDS)
    before = expected_reward(policy, reward).item()
    module = module_of(policy, reward, phases(rce(20)), trainer=settings(lr=0.1))
    run(module, forever([0, 0, 0, 0]), tmp_path)
    assert expected_reward(policy, reward).item() > before + 0.1


def test_rce_on_stored_candidates_ends_at_their_weights(tmp_path: Path) -> None:
    """The cross entropy to fixed weights is least where the policy has those probabilities."""
    policy = ToyPolicy()
    scores = [0.0, 0.5, 1.0]
    stored = group_of([[[0, 0], [1, 1], [2, 2]]], [scores])
    phase = rce(60, tau_start=0.7, tau_end=0.7, zscore_scores=False)
    trainer = settings(lr=0.3, schedule="cosine")
    module = module_of(policy, PathReward(REWARDS), phases(phase), trainer=trainer)
    run(module, forever(stored), tmp_path)
    scored = policy.log_probs(policy.encode([0]), stored.actions)
    wanted = torch.tensor([scores]).div(0.7).softmax(-1)
    torch.testing.assert_close(scored.logp_BGT.sum(-1).exp(), wanted, atol=0.02, rtol=0)


# -- phases --------------------------------------------------------------------------------------


def test_phases_switch_at_their_step_and_take_their_own_reference(tmp_path: Path) -> None:
    policy = ToyPolicy()
    loss = LossConfig(kl=KLConfig(weight=0.1))
    curriculum = phases(rce(3), grpo(4), grpo(3))
    module = module_of(policy, PathReward(REWARDS), curriculum, loss)
    recorder, references = Recorder(), []

    class References(Recorder):
        def on_train_batch_end(self, trainer, pl_module, *rest) -> None:
            references.append([each.logits.clone() for each in pl_module.references])

    run(module, forever([0, 0]), tmp_path, callbacks=[recorder, References()])
    is_rce = ["train/tau" in seen and "train/kl" not in seen for seen in recorder.metrics]
    assert is_rce == [True] * 3 + [False] * 7
    assert [len(each) for each in references] == [0] * 3 + [1] * 7
    for step in range(3, 10):  # the policy as it stood when the phase began
        start = 3 if step < 7 else 7
        assert torch.equal(references[step][0], recorder.policies[start])
    kl = [seen["train/kl"] for seen in recorder.metrics[3:]]
    assert kl[0] == kl[4] == 0.0
    assert min(kl[1:4] + kl[5:]) > 0.0


def test_the_ratio_starts_each_phase_at_one(tmp_path: Path) -> None:
    module = module_of(ToyPolicy(), PathReward(REWARDS), phases(grpo(3), grpo(3)))
    recorder = Recorder()
    run(module, forever([0, 0]), tmp_path, callbacks=[recorder])
    assert max(recorder.series("train/log_ratio_abs")) <= SAME_ROLLOUT  # all drawn on policy


def test_temperature_scales_draws_and_scores_alike(tmp_path: Path) -> None:
    policy = ToyPolicy()
    module = module_of(policy, PathReward(REWARDS), phases(grpo(4)), temperature=0.6)
    recorder = Recorder()
    run(module, forever([0, 0]), tmp_path, callbacks=[recorder])
    assert max(recorder.series("train/log_ratio_abs")) <= SAME_ROLLOUT
    assert recorder.series("rollout/temperature") == pytest.approx([0.6] * 4)


def test_tau_falls_linearly_over_its_phase(tmp_path: Path) -> None:
    module = module_of(ToyPolicy(), PathReward(REWARDS), phases(rce(4)))
    recorder = Recorder()
    run(module, forever([0]), tmp_path, callbacks=[recorder])
    assert recorder.series("train/tau") == pytest.approx([2.0, 1.5, 1.0, 0.5])


# -- reuse ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("iterations", "minibatches"), [(3, 1), (1, 3), (2, 2)])
def test_reused_rollouts_leave_the_policy_that_drew_them(
    iterations: int, minibatches: int, tmp_path: Path
) -> None:
    per_round = iterations * minibatches
    curriculum = phases(grpo(2 * per_round, num_iterations=iterations, minibatches=minibatches))
    recorder = Recorder()
    module = module_of(ToyPolicy(), PathReward(REWARDS), curriculum, trainer=settings(lr=0.02))
    run(module, forever([0, 0, 0, 0]), tmp_path, callbacks=[recorder])
    drift = recorder.series("train/log_ratio_abs")
    for start in (0, per_round):
        assert drift[start] <= SAME_ROLLOUT
        assert min(drift[start + 1 : start + per_round]) > SAME_ROLLOUT


def test_reused_rollouts_are_drawn_in_the_precision_of_the_step(tmp_path: Path) -> None:
    autocast: list[bool] = []

    def draw(policy, prompt, queries, temperature) -> Actions:
        autocast.append(torch.is_autocast_enabled("cpu"))
        return FreshSampler(4)(policy, prompt, queries, temperature)

    curriculum = phases(grpo(1), grpo(2, num_iterations=2))
    module = module_of(ToyPolicy(), PathReward(REWARDS), curriculum, sampler=draw)
    hardware = HardwareConfig(precision="bf16-mixed")
    run(module, forever([0]), tmp_path, hardware=hardware)
    assert autocast == [True, True]


def test_statistics_of_a_reused_rollout_are_means_over_its_draws(tmp_path: Path) -> None:
    totals: list[float] = []

    def judge(queries, actions: Actions) -> list[list[float]]:
        values = PathReward(REWARDS)(queries, actions)
        totals.append(sum(map(sum, values)) / sum(map(len, values)))
        return values

    recorder = Recorder()
    curriculum = phases(grpo(4, num_iterations=2, minibatches=2))
    run(module_of(ToyPolicy(), judge, curriculum), forever([0]), tmp_path, callbacks=[recorder])
    assert len(totals) == 2
    assert recorder.series("reward/total")[0] == pytest.approx(sum(totals) / 2)


# -- the weight of the KL term -------------------------------------------------------------------


def test_the_kl_weight_moves_only_between_optimiser_steps(tmp_path: Path) -> None:
    kl = KLConfig(weight=0.1, adaptive=True, low=1e-6, high=1e-5, every=1, ema=0.0)
    trainer = settings(accumulation=3)
    module = module_of(
        ToyPolicy(), PathReward(REWARDS), phases(grpo(4)), LossConfig(kl=kl), trainer
    )
    recorder = Recorder()
    run(module, forever([0, 0]), tmp_path, callbacks=[recorder])
    weights = recorder.series("train/kl_weight")
    steps = [weights[i : i + 3] for i in range(0, 12, 3)]
    assert all(len(set(step)) == 1 for step in steps)
    # KL 0 at first, below the band, then above it.
    assert [step[0] for step in steps] == pytest.approx([0.1, 0.1 / 1.5, 0.1, 0.15])


def test_a_reused_rollout_is_scored_at_the_temperature_it_was_drawn_at(tmp_path: Path) -> None:
    """Drawn ahead of a batch, so before the temperature moves with the KL of the last one."""
    kl = KLConfig(weight=0.1, follow_temperature=True, low=1e-6, high=1e-5, every=1, ema=0.0)
    curriculum = phases(grpo(6, num_iterations=2))
    module = module_of(ToyPolicy(), PathReward(REWARDS), curriculum, LossConfig(kl=kl))
    recorder = Recorder()
    run(module, forever([0] * 4), tmp_path, callbacks=[recorder])
    assert module.temperature != 1.0
    assert max(recorder.series("train/log_ratio_abs")[::2]) <= SAME_ROLLOUT


def test_no_kl_weight_no_reference(tmp_path: Path) -> None:
    loss = LossConfig(kl=KLConfig(weight=0.0))
    module = module_of(ToyPolicy(), PathReward(REWARDS), phases(grpo(2)), loss)
    recorder = Recorder()
    run(module, forever([0]), tmp_path, callbacks=[recorder])
    assert module.references == ()
    assert "train/kl" not in recorder.metrics[-1]


# -- groups without contrast ---------------------------------------------------------------------


class FlatUntil:
    """Judge all candidates alike for the first `calls` calls, then by path."""

    def __init__(self, calls: int) -> None:
        self.flat = calls
        self.path = PathReward([float(i) for i in range(9)])

    def __call__(self, queries, actions: Actions) -> list[list[float]]:
        values = self.path(queries, actions)
        return [[0.5] * len(row) for row in values] if self.path.calls <= self.flat else values


@pytest.mark.parametrize(
    ("flat", "limit", "draws", "mixed"),
    [(0, 2, 1, True), (1, 2, 2, True), (2, 2, 3, True), (9, 2, 3, False), (9, 0, 1, False)],
)
def test_flat_groups_are_drawn_again_up_to_a_limit(
    flat: int, limit: int, draws: int, mixed: bool
) -> None:
    reward = FlatUntil(flat)
    advantage = AdvantageConfig(flat_groups=FlatGroups.resample, max_resamples=limit)
    module = module_of(ToyPolicy(), reward, phases(grpo(1)), LossConfig(advantage=advantage))
    group = module.roll_out([0]).group
    assert reward.path.calls == draws
    assert bool(group.mixed_B.all()) is mixed


def test_flat_groups_are_dropped_without_another_draw() -> None:
    reward = FlatUntil(9)
    module = module_of(ToyPolicy(), reward, phases(grpo(1)))
    assert not module.roll_out([0]).group.mixed_B.any()
    assert reward.path.calls == 1


def test_grpo_needs_the_log_probs_of_its_candidates(tmp_path: Path) -> None:
    stored = group_of([[[0, 0], [1, 1]]], [[1.0, 0.0]])
    module = module_of(ToyPolicy(), PathReward(REWARDS), phases(grpo(1)))
    with pytest.raises(AssertionError, match="log-probs"):
        run(module, forever(stored), tmp_path)


# -- resuming ------------------------------------------------------------------------------------


def resume_after(
    first: int, curriculum: Curriculum, folder: Path, loss: LossConfig | None = None
) -> tuple[Recorder, Recorder, GroupPolicyModule]:
    """Train `first` steps, then go on from the checkpoint to the end."""
    recorders = Recorder(), Recorder()
    for recorder, resume in zip(recorders, (None, str(folder)), strict=True):
        trainer = settings(checkpoint_every=first, resume=resume)
        module = module_of(ToyPolicy(), PathReward(REWARDS), curriculum, loss, trainer)

        class Limit(Recorder):
            def on_train_batch_end(self, trainer, pl_module, *rest, resume=resume) -> None:
                trainer.should_stop = resume is None and trainer.global_step >= first

        run(module, forever([0, 0]), folder, callbacks=[recorder, Limit()])
    return *recorders, module


def test_a_resumed_phase_keeps_the_reference_it_began_with(tmp_path: Path) -> None:
    before, after, module = resume_after(4, phases(rce(2), grpo(6)), tmp_path)
    assert len(before.metrics) == 4
    assert after.series("step") == [5, 6, 7, 8]
    assert torch.equal(module.references[0].logits, before.policies[2])
    assert after.metrics[0]["train/kl"] > 0


def test_a_checkpoint_between_two_phases_begins_the_next_with_its_own_reference(
    tmp_path: Path,
) -> None:
    before, after, module = resume_after(3, phases(grpo(3), grpo(3)), tmp_path)
    assert len(before.metrics) == 3
    assert torch.equal(module.references[0].logits, after.policies[0])
    assert after.metrics[0]["train/kl"] == 0


@pytest.mark.parametrize("curriculum", [phases(grpo(6)), phases(grpo(3), grpo(3))])
def test_a_resumed_run_goes_on_with_the_adapted_kl_weight(
    curriculum: Curriculum, tmp_path: Path
) -> None:
    kl = KLConfig(weight=0.1, adaptive=True, low=1e-6, high=1e-5, every=1, ema=0.0)
    before, after, _ = resume_after(3, curriculum, tmp_path, LossConfig(kl=kl))
    # KL 0 at first, below the band, then above it; on the last one before the checkpoint, too.
    assert before.series("train/kl_weight") == pytest.approx([0.1, 0.1 / 1.5, 0.1])
    assert after.series("train/kl_weight")[0] == pytest.approx(0.15)


@pytest.mark.parametrize("first", [1, 5])
def test_a_resumed_run_makes_every_step_that_is_left(first: int, tmp_path: Path) -> None:
    before, after, module = resume_after(first, phases(grpo(6)), tmp_path)
    assert before.series("step") == list(range(1, first + 1))
    assert after.series("step") == list(range(first + 1, 7))
    assert module.global_step == 6


@pytest.mark.filterwarnings("ignore:Total length of")
def test_a_finished_run_resumes_to_nothing(tmp_path: Path) -> None:
    _, after, module = resume_after(3, phases(grpo(3)), tmp_path)
    assert after.metrics == []
    assert module.global_step == 3


def test_streams_know_their_phase(tmp_path: Path) -> None:
    """Stored candidates first, fresh ones after: the published order of the curriculum."""
    policy = ToyPolicy()
    stored = group_of([[[0, 0], [1, 1]]], [[0.0, 1.0]])

    def stream(phase: Phase) -> Iterator[Batch]:
        return itertools.repeat(stored if phase.index == 0 else [0, 0])

    recorder = Recorder()
    module = module_of(policy, PathReward(REWARDS), phases(rce(2), grpo(2)))
    run(module, stream, tmp_path, callbacks=[recorder])
    sizes = [len(queries) for queries in recorder.queries]
    assert sizes == [1, 1, 2, 2]
