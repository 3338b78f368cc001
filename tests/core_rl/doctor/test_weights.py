"""Weights, optimiser, gradients and reference, each with the fault it is there for."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from core_rl.doctor.findings import Finding, Verdict
from core_rl.doctor.weights import (
    change_findings,
    gradient_findings,
    optimizer_findings,
    rate_finding,
    reference_findings,
    sample_weights,
    sample_without_gradients,
    weight_findings,
)
from core_rl.loop.optim import MasterAdamW, build_optimizer


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))


def backward(module: nn.Module, ids: torch.Tensor | None = None) -> None:
    module(torch.arange(5) if ids is None else ids).square().mean().backward()


def bad(found: list[Finding], verdict: Verdict = Verdict.fail) -> dict[str, str]:
    return {one.check: one.cause for one in found if one.verdict is verdict}


# -- weights and optimiser -----------------------------------------------------------------------


def test_one_broken_weight_is_found_and_its_tensor_named() -> None:
    module = net()
    assert bad(weight_findings(module)) == {}
    module[1].weight.data[3, 3] = float("inf")
    assert "1.weight" in bad(weight_findings(module))["weights/not_finite"]


def test_a_frozen_policy_is_found_and_a_partly_frozen_one_is_not() -> None:
    module = net()
    module[0].requires_grad_(False)
    assert bad(weight_findings(module)) == {}
    assert "frozen" in bad(weight_findings(module.requires_grad_(False)))["weights/trainable_share"]


def test_the_optimiser_must_hold_what_trains() -> None:
    module = net()
    assert bad(optimizer_findings(module, torch.optim.AdamW(module.parameters()))) == {}
    found = bad(optimizer_findings(module, torch.optim.AdamW(module[3].parameters())))
    assert "3 trainable parameters" in found["optimizer/missing"]
    module[0], module[1] = module[0].requires_grad_(False), module[1].requires_grad_(False)
    assert bad(optimizer_findings(module, torch.optim.AdamW(module[3].parameters()))) == {}


def test_an_optimiser_of_a_copy_is_found() -> None:
    module = net()
    found = bad(optimizer_findings(module, torch.optim.AdamW(copy.deepcopy(module).parameters())))
    assert {"optimizer/missing", "optimizer/strange"} == set(found)


@pytest.mark.parametrize("rate", [0.0, float("inf")])
def test_the_learning_rate_must_be_a_rate(rate: float) -> None:
    module = net()
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate)
    assert "optimizer/learning_rate" in bad(optimizer_findings(module, optimizer))


def test_a_scheduler_that_is_stuck_at_0_is_no_rounding() -> None:
    optimizer = torch.optim.AdamW(net().parameters(), lr=0.1)
    assert rate_finding(optimizer).verdict is Verdict.ok
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    assert "the scheduler holds the learning rate at 0" in rate_finding(optimizer).cause


# -- gradients -----------------------------------------------------------------------------------


def test_gradients_are_there_and_finite() -> None:
    module = net()
    assert "no parameter has a gradient" in bad(gradient_findings(module, True))["gradient/norm"]
    assert bad(gradient_findings(module, has_signal=False)) == {}
    backward(module)
    assert bad(gradient_findings(module, True)) == {}
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    assert "advantages" in bad(gradient_findings(module, True))["gradient/norm"]
    assert bad(gradient_findings(module, has_signal=False)) == {}
    module[3].bias.grad[0] = torch.nan
    assert "not finite" in bad(gradient_findings(module, False))["gradient/norm"]


def test_a_part_that_is_cut_off_from_the_loss_is_warned_of() -> None:
    module = net()
    with torch.no_grad():  # as reentrant checkpointing does to layers whose input needs no gradient
        hidden = module[1](module[0](torch.arange(5)))
    module[3](hidden).mean().backward()
    warned = bad(gradient_findings(module, True), Verdict.warn)
    assert "0.weight" in warned["gradient/untouched_share"]


# -- the update ----------------------------------------------------------------------------------


def test_a_step_changes_weights() -> None:
    module = net()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-6)
    backward(module)
    before = sample_weights(module)
    optimizer.step()
    assert bad(change_findings(before)) == {}


def test_rows_without_a_gradient_may_stand_still() -> None:
    module = nn.Sequential(nn.Embedding(1000, 8), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    backward(module, torch.tensor([3]))
    before = sample_weights(module)
    optimizer.step()
    found = change_findings(before)
    assert bad(found) == {} and found[0].figure == 1


def test_an_update_that_rounds_away_is_found() -> None:
    module = net().to(torch.bfloat16)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(0.5)  # bfloat16 cannot tell .5 from .500001
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-6)
    backward(module)
    before = sample_weights(module)
    optimizer.step()
    assert "rounding" in bad(change_findings(before))["weights/changed_share"]


def test_most_of_an_update_that_rounds_away_is_warned_of_and_masters_are_looked_at() -> None:
    module = net().to(torch.bfloat16)
    for masters in (False, True):
        optimizer = build_optimizer(module, 1e-4, masters=masters)
        backward(module)
        kept = optimizer.masters if isinstance(optimizer, MasterAdamW) else None
        before = sample_weights(module, kept)
        optimizer.step()
        optimizer.zero_grad()
        found = change_findings(before)
        assert found[0].verdict is (Verdict.ok if masters else Verdict.warn)
        assert masters or 0 < (found[0].figure or 0) < 0.5


def test_without_gradients_to_look_at_some_weight_must_move() -> None:
    module = net()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    backward(module)
    before = sample_without_gradients(module)
    assert bad(change_findings(before))
    optimizer.step()
    assert bad(change_findings(before)) == {}


def test_a_step_that_was_never_made_is_found() -> None:
    module = net()
    backward(module)
    assert "weights/changed_share" in bad(change_findings(sample_weights(module)))
    quiet = net()
    found = change_findings(sample_weights(quiet))
    assert [one.verdict for one in found] == [Verdict.skipped]


# -- reference -----------------------------------------------------------------------------------


def test_a_reference_is_a_frozen_copy() -> None:
    module = net()
    good = copy.deepcopy(module).requires_grad_(False)
    assert bad(reference_findings(module, good)) == {}
    assert (
        "require gradients"
        in bad(reference_findings(module, copy.deepcopy(module)))["reference/trainable"]
    )


def test_sharing_one_trained_tensor_is_aliasing() -> None:
    module = net()
    reference = copy.deepcopy(module).requires_grad_(False)
    reference[1].weight = nn.Parameter(module[1].weight.data, requires_grad=False)
    assert "1.weight" in bad(reference_findings(module, reference))["reference/aliased"]
    module[1].weight.requires_grad_(False)  # what never trains may be shared
    assert bad(reference_findings(module, reference)) == {}


def test_a_reference_that_shares_all_but_adapters_is_no_alias() -> None:
    found = reference_findings(net(), object())
    assert [one.verdict for one in found] == [Verdict.skipped]
