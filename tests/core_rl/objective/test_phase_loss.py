"""Losses of a training step: gradients against exact ones, on a policy that can be enumerated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from core_rl.config import DoctorConfig, PhaseConfig
from core_rl.loop.module import GroupPolicyModule
from core_rl.loss_config import (
    AdvantageConfig,
    AdvantageKind,
    KLConfig,
    KLKind,
    LossConfig,
    Objective,
    RatioLevel,
    Reduction,
)
from tests.core_rl.toy import (
    PathReward,
    Recorder,
    ToyPolicy,
    expected_reward,
    forever,
    group_of,
    grpo,
    module_of,
    paths,
    phases,
    rce,
    rows,
    run,
    settings,
    uneven,
)

REWARDS = [0.3, -1.0, 0.0, 2.0, 0.1, 0.7, -0.4, 0.9, 1.5]
NO_KL = KLConfig(weight=0.0)

# Lightning warns where a step is taken without a Trainer, which is what these tests do.
pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")


def gradient(module: GroupPolicyModule, batch: object) -> Tensor:
    """Gradient of one training step."""
    module.policy.zero_grad()
    module.training_step(batch, 0).backward()
    grad = module.policy.logits.grad
    assert grad is not None
    return grad.clone()


# -- the exact gradient of the expected reward ---------------------------------------------------


@pytest.mark.parametrize(
    "loss",
    [
        LossConfig(reduction=Reduction.dr_grpo),
        LossConfig(reduction=Reduction.dr_grpo, objective=Objective.cispo),
        LossConfig(reduction=Reduction.grpo, ratio_level=RatioLevel.sequence_sum),
    ],
    ids=["clip", "cispo", "sequence"],
)
def test_sampled_grpo_points_along_the_gradient_of_the_expected_reward(loss: LossConfig) -> None:
    """Leave-one-out advantages are unbiased, so many draws come close to the enumeration."""
    torch.manual_seed(0)
    policy, reward = ToyPolicy(), PathReward(REWARDS)
    loss = replace(loss, kl=NO_KL, advantage=AdvantageConfig(kind=AdvantageKind.leave_one_out))
    module = module_of(policy, reward, phases(grpo(1)), loss, candidates=4)
    drawn = -gradient(module, [0] * 20_000)
    assert module.last_group is not None
    # Groups without contrast have no advantage but for the denominator, which they leave.
    drawn = drawn * module.last_group.mixed_B.float().mean()
    exact = torch.autograd.grad(expected_reward(policy, reward), policy.logits)[0]
    torch.testing.assert_close(drawn, exact, atol=0.01, rtol=0)
    assert exact.abs().max() > 0.1


def test_rce_over_stored_candidates_has_the_gradient_of_their_weighted_cross_entropy() -> None:
    policy = ToyPolicy()
    every, tau = paths(policy), 0.5
    stored = group_of([every.ids_BGT[0].tolist()], [REWARDS])
    phase = rce(1, tau_start=tau, tau_end=tau, zscore_scores=False)
    module = module_of(policy, PathReward(REWARDS), phases(phase))
    weights = torch.tensor(REWARDS).div(tau).softmax(-1)
    logp_BGT = policy.log_probs(policy.encode([0]), every).logp_BGT
    wanted = torch.autograd.grad(-(weights * logp_BGT.sum(-1)[0]).sum(), policy.logits)[0]
    torch.testing.assert_close(gradient(module, stored), wanted)


# -- what must not move the policy ---------------------------------------------------------------


@pytest.mark.parametrize("kind", list(KLKind))
def test_groups_without_contrast_move_nothing_not_even_by_kl(kind: KLKind) -> None:
    loss = LossConfig(kl=KLConfig(weight=1.0, kind=kind))
    module = module_of(ToyPolicy(), PathReward([0.5] * 9), phases(grpo(1)), loss)
    module.begin_phase(module.phase)
    with torch.no_grad():  # away from the reference: the KL term has a slope here
        module.policy.logits.add_(torch.randn_like(module.policy.logits))
    assert torch.equal(gradient(module, [0, 0]), torch.zeros_like(module.policy.logits))


@pytest.mark.parametrize("kind", list(KLKind))
def test_a_flat_group_beside_a_mixed_one_changes_nothing(kind: KLKind) -> None:
    policy = ToyPolicy(queries=2)
    loss = LossConfig(kl=KLConfig(weight=1.0, kind=kind))
    module = module_of(policy, PathReward(REWARDS), phases(grpo(1)), loss)
    module.begin_phase(module.phase)
    with torch.no_grad():
        policy.logits.add_(torch.randn_like(policy.logits))
    mixed = [[0, 0], [1, 2]], [1.0, 0.0], [1.0, -1.0]
    flat = [[2, 1], [0, 2]], [0.5, 0.5], [0.0, 0.0]
    both = [list(pair) for pair in zip(mixed, flat, strict=True)]
    alone = gradient(module, group_of([mixed[0]], [mixed[1]], [mixed[2]], policy, [0]))
    together = gradient(module, group_of(*both, policy=policy, queries=[0, 1]))
    assert alone.abs().max() > 0
    torch.testing.assert_close(together, alone)


def test_truncated_candidates_do_not_learn_where_they_are_masked() -> None:
    """Option 2 stops a candidate; [0, 1] was cut by the limit and alone visits row 0."""
    policy = ToyPolicy(stop=2)
    group = group_of([[[0, 1], [1, 2], [2]]], [[2.0, 1.0, 0.0]], [[1.0, 0.0, -1.0]], policy)
    cut = replace(group, actions=replace(group.actions, truncated_BG=torch.tensor([[1, 0, 0]]) > 0))

    def row_0(mask_truncated: bool) -> Tensor:
        loss = LossConfig(mask_truncated=mask_truncated, kl=NO_KL)
        return gradient(module_of(policy, PathReward(REWARDS), phases(grpo(1)), loss), cut)[0, 0]

    assert row_0(True).abs().max() == 0
    assert row_0(False).abs().max() > 0


def test_fresh_candidates_say_which_were_cut() -> None:
    torch.manual_seed(0)
    policy = ToyPolicy(stop=2)
    module = module_of(policy, PathReward([float(i) for i in range(9)]), phases(grpo(1)))
    actions = module.roll_out([0, 0]).group.actions
    last_BG = actions.ids_BGT.gather(-1, actions.mask_BGT.sum(-1, keepdim=True) - 1)[..., 0]
    assert actions.truncated_BG is not None
    assert torch.equal(actions.truncated_BG, last_BG != 2)
    assert actions.truncated_BG.any() and not actions.truncated_BG.all()


# -- KL where the sampling temperature follows it ------------------------------------------------


def measured_kl(temperature: float, kl: KLConfig) -> float:
    """KL that the controller sees of 40,000 candidates drawn at a temperature, all groups mixed."""
    torch.manual_seed(0)
    policy, reward = ToyPolicy(steps=1), PathReward([0.0, 1.0, 2.0])
    module = module_of(policy, reward, phases(grpo(1)), LossConfig(kl=kl), candidates=200)
    module.begin_phase(module.phase)
    with torch.no_grad():
        policy.logits.mul_(1.6)  # sharper than the reference
    module.controller.temperature.fill_(temperature)
    module.training_step([0] * 200, 0)
    return float(module.controller.observed()[0])


@pytest.mark.parametrize("kind", [KLKind.k1, KLKind.k3, KLKind.exact])
def test_the_temperature_follows_a_kl_that_does_not_follow_the_temperature(kind: KLKind) -> None:
    policy = ToyPolicy(steps=1)
    logp, ref_logp = (
        (scale * policy.logits.detach()[0, -1]).log_softmax(-1) for scale in (1.6, 1.0)
    )
    exact = float((logp.exp() * (logp - ref_logp)).sum())
    for temperature in (0.7, 1.0, 1.3):
        following = KLConfig(weight=0.1, kind=kind, follow_temperature=True)
        assert measured_kl(temperature, following) == pytest.approx(exact, rel=0.05)
    # Measured at the sampling temperature, colder means more: the temperature would fall again.
    plain = KLConfig(weight=0.1, kind=kind)
    assert measured_kl(0.7, plain) > 1.2 * measured_kl(1.0, plain)


# -- micro-batches -------------------------------------------------------------------------------


def gradients_of(
    cut: Sequence[Sequence[int]], phase: PhaseConfig, loss: LossConfig, folder: Path
) -> Tensor:
    """Gradients of two optimiser steps over the groups of `uneven`, cut into micro-batches."""
    recorder, policy = Recorder(), ToyPolicy(4, 3, 3, stop=2)
    group = uneven(policy)
    trainer = settings(accumulation=len(cut))
    module = module_of(policy, PathReward(REWARDS), phases(phase), loss, trainer, max_completion=3)
    stream = forever(*(rows(group, part) for part in cut))
    # Each query has logits of its own here, so the doctor is right that a flat one never moves.
    doctor = DoctorConfig(enabled=False)
    run(module, stream, folder, callbacks=[recorder], doctor=doctor)
    return torch.stack(recorder.gradients)


@pytest.mark.parametrize("cut", [[[0], [1], [2], [3]], [[2], [3], [1], [0]], [[2, 3], [1, 0]]])
@pytest.mark.parametrize("reduction", list(Reduction))
def test_what_a_step_learns_does_not_depend_on_how_it_is_cut(
    reduction: Reduction, cut: list[list[int]], tmp_path: Path
) -> None:
    loss = LossConfig(reduction=reduction, kl=KLConfig(weight=0.3))
    whole = gradients_of([[0, 1, 2, 3]], grpo(2), loss, tmp_path)
    torch.testing.assert_close(gradients_of(cut, grpo(2), loss, tmp_path), whole)
    # The groups without contrast are not missed, neither whole nor in pieces.
    mixed = gradients_of([[0, 1]], grpo(2), loss, tmp_path)
    torch.testing.assert_close(mixed, whole)
    assert whole.abs().max() > 0.01


def test_reward_weighted_cross_entropy_does_not_depend_on_it_either(tmp_path: Path) -> None:
    whole = gradients_of([[0, 1, 2, 3]], rce(2), LossConfig(), tmp_path)
    cut = gradients_of([[0], [1], [2], [3]], rce(2), LossConfig(), tmp_path)
    torch.testing.assert_close(cut, whole)


def test_a_reused_rollout_does_not_depend_on_it_either(tmp_path: Path) -> None:
    phase, loss = grpo(2, num_iterations=2), LossConfig(kl=NO_KL)
    whole = gradients_of([[0, 1, 2, 3]], phase, loss, tmp_path)
    cut = gradients_of([[0], [1], [2], [3]], phase, loss, tmp_path)
    torch.testing.assert_close(cut, whole)


def test_a_step_without_any_contrast_moves_nothing(tmp_path: Path) -> None:
    gradient = gradients_of([[2], [3]], grpo(2), LossConfig(kl=KLConfig(weight=0.3)), tmp_path)
    assert not gradient.any()
