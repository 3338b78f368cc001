"""KL estimators against enumeration, and the controller of the weight."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from torch import Tensor

from core_rl.loss_config import KLConfig, KLKind, Reduction
from core_rl.objective.kl import KLController, kl_per_step
from core_rl.objective.losses import reduce_steps
from core_rl.types import StepLogProbs

LOGITS = torch.tensor([0.2, -0.5, 1.1, 0.0], dtype=torch.float64)
REF_LOGITS = torch.tensor([0.0, 0.3, 0.4, -0.9], dtype=torch.float64)


def true_kl(p_logp: Tensor, q_logp: Tensor) -> Tensor:
    return (p_logp.exp() * (p_logp - q_logp)).sum()


def as_steps(values_K: Tensor) -> StepLogProbs:
    """All K options as K candidates of one step, 1 x K x 1."""
    return StepLogProbs(values_K.view(1, -1, 1))


def all_options(logp_K: Tensor) -> StepLogProbs:
    """One step with the log-probabilities of its K options."""
    return StepLogProbs(torch.zeros(1, 1, 1, dtype=logp_K.dtype), logp_K.view(1, 1, 1, -1))


# -- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (KLKind.k1, math.log(2)),
        (KLKind.k2, math.log(2) ** 2 / 2),
        (KLKind.k3, 0.5 + math.log(2) - 1),  # ref / pi = 1/2
    ],
)
def test_estimators_by_hand(kind: KLKind, expected: float) -> None:
    logp_BGT = torch.tensor([[[math.log(0.8)]]])
    got = kl_per_step(StepLogProbs(logp_BGT), StepLogProbs(torch.tensor([[[math.log(0.4)]]])), kind)
    assert got.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", [KLKind.k1, KLKind.k3])
def test_k1_and_k3_are_unbiased_on_samples_of_the_policy(kind: KLKind) -> None:
    logp, ref = LOGITS.log_softmax(-1), REF_LOGITS.log_softmax(-1)
    values = kl_per_step(as_steps(logp), as_steps(ref), kind).flatten()
    torch.testing.assert_close((logp.exp() * values).sum(), true_kl(logp, ref))


def test_k2_is_biased_but_close_for_close_policies() -> None:
    logp = LOGITS.log_softmax(-1)
    ref = (LOGITS + 0.01 * REF_LOGITS).log_softmax(-1)
    values = kl_per_step(as_steps(logp), as_steps(ref), KLKind.k2).flatten()
    expected = true_kl(logp, ref)
    assert (logp.exp() * values).sum().item() == pytest.approx(expected.item(), rel=0.02)
    assert not torch.isclose((logp.exp() * values).sum(), expected, rtol=1e-6)


def test_the_exact_kl_is_the_definition() -> None:
    logp, ref = LOGITS.log_softmax(-1), REF_LOGITS.log_softmax(-1)
    got = kl_per_step(all_options(logp), all_options(ref), KLKind.exact)
    torch.testing.assert_close(got, true_kl(logp, ref).view(1, 1, 1))


# -- gradients: what a loss made of each estimator pushes towards --------------------------------


@pytest.mark.parametrize(
    ("kind", "with_ratio", "direction"),
    [
        (KLKind.k1, False, "none"),
        (KLKind.k2, False, "reverse"),
        (KLKind.k3, False, "forward"),
        (KLKind.k1, True, "reverse"),
        (KLKind.k3, True, "reverse"),
    ],
)
def test_expected_gradients(kind: KLKind, with_ratio: bool, direction: str) -> None:
    logits = LOGITS.clone().requires_grad_()
    logp, ref = logits.log_softmax(-1), REF_LOGITS.log_softmax(-1)
    ratio = (logp - logp.detach()).exp().view(1, -1, 1) if with_ratio else None
    values = kl_per_step(as_steps(logp), as_steps(ref), kind, ratio_BGT=ratio).flatten()
    # The policy drew the options: their probabilities weigh, without a gradient of their own.
    (got,) = torch.autograd.grad((logp.detach().exp() * values).sum(), logits, retain_graph=True)
    target = {
        "none": 0.0 * logits.sum(),
        "reverse": true_kl(logp, ref),
        "forward": true_kl(ref, logp),
    }[direction]
    torch.testing.assert_close(got, torch.autograd.grad(target, logits)[0])


def test_the_exact_gradient_is_that_of_the_reverse_kl() -> None:
    logits = LOGITS.clone().requires_grad_()
    logp, ref = logits.log_softmax(-1), REF_LOGITS.log_softmax(-1)
    got = kl_per_step(all_options(logp), all_options(ref), KLKind.exact).sum()
    (gradient,) = torch.autograd.grad(got, logits, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(true_kl(logp, ref), logits)[0])


# -- masks ---------------------------------------------------------------------------------------


def test_options_that_are_masked_out_add_nothing_and_get_no_gradient() -> None:
    blocked = torch.tensor([False, True, False, False])
    logits = LOGITS.clone().requires_grad_()
    logp = logits.masked_fill(blocked, -math.inf).log_softmax(-1)
    ref = REF_LOGITS.masked_fill(blocked, -math.inf).log_softmax(-1)
    # Under anomaly detection, so that no NaN may arise on the way either.
    with torch.autograd.set_detect_anomaly(True):
        kl = kl_per_step(all_options(logp), all_options(ref), KLKind.exact)
        kl.sum().backward()
    torch.testing.assert_close(kl.sum().detach(), true_kl(logp[~blocked], ref[~blocked]).detach())
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[1].item() == 0.0


@pytest.mark.parametrize("kind", list(KLKind))
@pytest.mark.parametrize("garbage", [math.nan, -math.inf, 1e30])
def test_masked_steps_are_zero_without_gradient(kind: KLKind, garbage: float) -> None:
    logp_BGTK = torch.log_softmax(torch.randn(1, 1, 2, 3), -1)
    logp_BGTK[0, 0, 1] = garbage
    logp_BGTK.requires_grad_()
    ref_BGTK = torch.log_softmax(torch.randn(1, 1, 2, 3), -1)
    mask_BGT = torch.tensor([[[True, False]]])
    kl_BGT = kl_per_step(
        StepLogProbs(logp_BGTK[..., 0], logp_BGTK),
        StepLogProbs(ref_BGTK[..., 0], ref_BGTK),
        kind,
        mask_BGT,
    )
    kl_BGT.sum().backward()
    assert kl_BGT[0, 0, 1].item() == 0.0
    assert logp_BGTK.grad is not None
    assert logp_BGTK.grad.isfinite().all()
    assert not logp_BGTK.grad[0, 0, 1].any()


@pytest.mark.parametrize("reduction", list(Reduction))
def test_flat_groups_carry_no_kl_either(reduction: Reduction) -> None:
    logp_BGT = torch.tensor([[[-0.5]], [[-0.9]]], requires_grad=True)
    kl_BGT = kl_per_step(
        StepLogProbs(logp_BGT), StepLogProbs(torch.full((2, 1, 1), -0.7)), KLKind.k3
    )
    learning_BGT = torch.tensor([True, False]).view(2, 1, 1)
    reduce_steps(kl_BGT, learning_BGT, reduction, max_length=1).backward()
    assert logp_BGT.grad is not None
    assert logp_BGT.grad[0].item() != 0.0
    assert logp_BGT.grad[1].item() == 0.0


def test_exact_without_all_options_says_so() -> None:
    zero = torch.zeros(1, 1, 1)
    with pytest.raises(AssertionError, match="all_logp_BGTK"):
        kl_per_step(StepLogProbs(zero), StepLogProbs(zero), KLKind.exact)


# -- the controller ------------------------------------------------------------------------------


def adaptive(**changes: float) -> KLConfig:
    settings = {"weight": 0.1, "every": 1, "ema": 0.0} | changes
    return KLConfig(adaptive=True, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kl", "weight"),
    [
        (0.2, 0.15),  # above the band .01 to .1: times 1.5
        (0.005, 0.1 / 1.5),  # below it: divided
        (0.05, 0.1),  # inside: as it was
        (0.1, 0.1),  # its edges belong to it
        (0.01, 0.1),
    ],
)
def test_the_weight_follows_the_band(kl: float, weight: float) -> None:
    controller = KLController(adaptive())
    changed = controller.update(kl)
    assert controller.weight.item() == pytest.approx(weight)
    assert changed == (weight != 0.1)


def test_the_weight_is_clamped_on_both_sides() -> None:
    controller = KLController(adaptive(weight_min=0.05, weight_max=0.5))
    for _ in range(20):
        controller.update(9.0)
    assert controller.weight.item() == pytest.approx(0.5)
    for _ in range(20):
        controller.update(0.0)
    assert controller.weight.item() == pytest.approx(0.05)


def test_it_acts_every_n_steps_on_the_smoothed_value() -> None:
    controller = KLController(adaptive(every=3, ema=0.5))
    assert [controller.update(kl) for kl in (0.16, 0.16, 0.0)] == [False, False, False]
    # .16, .16, then .5 * .16 + .5 * 0 = .08: inside the band, though 0 alone would be below it.
    assert controller.ema.item() == pytest.approx(0.08)
    assert [controller.update(0.4) for _ in range(3)] == [False, False, True]


def test_observing_moves_nothing_and_only_a_new_step_acts() -> None:
    controller = KLController(adaptive())
    controller.observe(torch.tensor(0.1), size=1)
    controller.observe(torch.tensor(0.4), size=3)
    controller.observe(torch.tensor(0.0), size=0)  # no group learned: does not dilute the mean
    assert controller.weight.item() == pytest.approx(0.1)
    assert not controller.step(0)
    assert controller.step(1)
    assert controller.ema.item() == pytest.approx((0.1 + 3 * 0.4) / 4)
    controller.observe(torch.tensor(9.0))
    assert not controller.step(1)
    assert controller.weight.item() == pytest.approx(0.15)
    assert controller.step(2)


def test_a_step_without_any_observation_changes_nothing() -> None:
    controller = KLController(adaptive())
    assert not controller.step(5)
    assert controller.updates.item() == 0


def test_a_fixed_weight_stays_and_zero_stays_zero() -> None:
    fixed, none = (KLController(KLConfig(weight=weight, every=1)) for weight in (0.04, 0.0))
    for kl in (9.0, 0.0):
        assert not fixed.update(kl)
        assert not none.update(kl)
    assert fixed.weight.item() == pytest.approx(0.04)
    assert none.weight.item() == 0.0


@pytest.mark.parametrize("switch", ["adaptive", "follow_temperature"])
def test_what_follows_kl_needs_a_kl_term(switch: str) -> None:
    with pytest.raises(
        ValueError, match=r"loss.kl.weight=0.0: expected above 0 with loss.kl.adapt"
    ):
        KLConfig(weight=0.0, **{switch: True})  # type: ignore[arg-type]


def test_a_weight_below_its_limit_does_not_jump_to_it() -> None:
    controller = KLController(adaptive(weight=1e-4))  # weight_min is 1e-3
    assert not controller.update(0.05)  # inside the band
    assert controller.weight.item() == pytest.approx(1e-4)
    assert not controller.update(0.001)  # below it: already at its lowest
    assert controller.weight.item() == pytest.approx(1e-4)
    assert controller.update(0.5)
    assert controller.weight.item() == pytest.approx(1.5e-4)


def test_a_temperature_below_its_limit_does_not_jump_to_it() -> None:
    cfg = KLConfig(follow_temperature=True, every=1, ema=0.0)
    controller = KLController(cfg, temperature=0.5)  # temperature_min is 0.7
    assert not controller.update(0.05)
    assert not controller.update(0.5)
    assert controller.temperature.item() == pytest.approx(0.5)
    assert controller.update(0.001)
    assert controller.temperature.item() == pytest.approx(0.5 * 1.05)


def test_a_broken_kl_is_reported_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    controller = KLController(adaptive())
    with caplog.at_level(logging.WARNING):
        assert not controller.update(math.nan)
    assert "ignores" in caplog.text
    assert controller.updates.item() == 0


def test_the_temperature_falls_with_drift_and_rises_without() -> None:
    cfg = KLConfig(follow_temperature=True, every=1, ema=0.0)
    controller = KLController(cfg, temperature=1.0)
    controller.update(0.5)
    assert controller.temperature.item() == pytest.approx(1 / 1.05)
    for _ in range(30):
        controller.update(0.5)
    assert controller.temperature.item() == pytest.approx(cfg.temperature_min)
    for _ in range(30):
        controller.update(0.0)
    assert controller.temperature.item() == pytest.approx(cfg.temperature_max)
    assert controller.weight.item() == pytest.approx(cfg.weight)


def test_state_survives_a_checkpoint() -> None:
    controller, copy = KLController(adaptive()), KLController(adaptive())
    controller.update(0.5)
    copy.load_state_dict(controller.state_dict())
    assert copy.weight.item() == pytest.approx(0.15)
    assert copy.ema.item() == pytest.approx(0.5)


def test_restart_forgets_the_smoothed_value_and_keeps_the_weight() -> None:
    controller = KLController(adaptive(ema=0.9))
    controller.update(0.5)
    controller.observe(torch.tensor(7.0))
    controller.restart()
    controller.update(0.05)
    assert controller.ema.item() == pytest.approx(0.05)
    assert controller.weight.item() == pytest.approx(0.15)
    assert not controller.step(1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_average_stays_float32_in_a_half_precision_module(dtype: torch.dtype) -> None:
    """A bf16 average of .02 stuck at .032: steps of a tenth of the gap are below its last place."""
    controller = KLController(KLConfig(weight=0.04, ema=0.99, every=10**6)).to(dtype)
    controller.update(0.04)
    for _ in range(2000):
        controller.update(0.02)
    assert float(controller.ema) == pytest.approx(0.02, rel=1e-5)
    assert float(controller.weight) == pytest.approx(0.04, rel=1e-7)
