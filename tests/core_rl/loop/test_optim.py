"""The optimiser's groups and the learning rate over a curriculum."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from core_rl.config import CurriculumConfig, PhaseConfig
from core_rl.loop.optim import MasterAdamW, build_optimizer, build_schedule, lr_factor
from core_rl.objective.curriculum import Curriculum


def curriculum(*phases: PhaseConfig) -> Curriculum:
    return Curriculum.resolve(CurriculumConfig(list(phases)), 1)


def test_norms_and_biases_do_not_decay_and_the_frozen_do_not_train() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1, bias=False))
    model[2].weight.requires_grad_(False)
    decayed, spared = build_optimizer(model, lr=0.1, weight_decay=0.01).param_groups
    assert [p.shape for p in decayed["params"]] == [(3, 2)]
    assert [p.shape for p in spared["params"]] == [(3,), (3,), (3,)]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.01, 0.0)


def test_a_frozen_module_is_an_error() -> None:
    with pytest.raises(ValueError, match="no trainable parameter"):
        build_optimizer(nn.Linear(1, 1).requires_grad_(False), lr=0.1)


def test_a_step_is_a_write_to_what_it_trains_and_to_nothing_else() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))
    before = [p._version for p in model.parameters()]
    optimizer = build_optimizer(model, lr=0.1)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    written = [p._version > old for p, old in zip(model.parameters(), before, strict=True)]
    assert written == [True, True, False, False]


def test_cosine_with_warm_up_by_hand() -> None:
    phases = curriculum(PhaseConfig(steps=10))
    factors = [lr_factor(step, phases, warmup=0.2, schedule="cosine") for step in range(10)]
    # Two steps of climbing, the peak, then 8 steps of the cosine: 1/2 after 4 of them.
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert factors[6] == pytest.approx(0.5)
    assert factors[9] == pytest.approx(0.5 * (1 + math.cos(math.pi * 7 / 8)))
    assert min(factors) > 0


def test_every_phase_warms_up_anew_at_its_own_scale() -> None:
    phases = curriculum(PhaseConfig(steps=4), PhaseConfig(steps=4, lr_scale=0.1))
    factors = [lr_factor(step, phases, warmup=0.25, schedule="constant") for step in range(8)]
    assert factors == pytest.approx([0.5, 1, 1, 1, 0.05, 0.1, 0.1, 0.1])


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_phases_always_learn(schedule: str, steps: int) -> None:
    phases = curriculum(PhaseConfig(steps=steps))
    assert all(lr_factor(step, phases, 0.1, schedule) > 0 for step in range(steps))


def test_the_schedule_sets_the_rate_of_each_step_and_may_look_past_the_end() -> None:
    phases = curriculum(PhaseConfig(steps=2), PhaseConfig(steps=2, lr_scale=0.5))
    weight = nn.Parameter(torch.zeros(2, 2))
    optimizer = build_optimizer(nn.ParameterList([weight]), lr=0.1)
    schedule = build_schedule(optimizer, phases, warmup=0.0, schedule="constant")
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.05])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


# -- half-precision weights ----------------------------------------------------------------------


def updates(dtype: torch.dtype, masters: bool, steps: int = 23) -> tuple[torch.Tensor, nn.Linear]:
    """What small steps make of N(0, .02) weights: what the optimiser holds, minus the start."""
    torch.manual_seed(0)
    model = nn.Linear(64, 64, bias=False)
    nn.init.normal_(model.weight, std=0.02)
    model.to(dtype)
    start = model.weight.detach().float().clone()
    optimizer = build_optimizer(model, lr=5e-7, masters=masters)
    for seed in range(steps):
        x = torch.randn(8, 64, generator=torch.Generator().manual_seed(seed)).to(dtype)
        optimizer.zero_grad()
        model(x).float().square().sum().backward()
        optimizer.step()
    held = optimizer.masters[model.weight] if isinstance(optimizer, MasterAdamW) else model.weight
    return (held.detach().float() - start).flatten(), model


def test_masters_keep_the_steps_that_bfloat16_loses() -> None:
    wanted, _ = updates(torch.float32, masters=True)
    kept, model = updates(torch.bfloat16, masters=True)
    lost, _ = updates(torch.bfloat16, masters=False)
    assert float(torch.cosine_similarity(kept, wanted, 0)) > 0.99
    assert float(torch.cosine_similarity(lost, wanted, 0)) < 0.2
    assert float((lost != 0).float().mean()) < 0.02
    assert float((kept != 0).float().mean()) > 0.99
    assert model.weight.dtype is torch.bfloat16


def test_masters_go_on_where_they_were() -> None:
    """Two steps, and a step, a checkpoint and a step, are the same to the bit."""

    def step(model: nn.Linear, optimizer: torch.optim.Optimizer, seed: int) -> None:
        optimizer.zero_grad()
        x = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed)).bfloat16()
        model(x).float().square().sum().backward()
        optimizer.step()

    torch.manual_seed(0)
    model = nn.Linear(4, 4).bfloat16()
    optimizer = build_optimizer(model, lr=1e-4)
    step(model, optimizer, 0)
    resumed = copy.deepcopy(model)
    again = build_optimizer(resumed, lr=1.0)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert again.param_groups[0]["lr"] == 1e-4
    step(model, optimizer, 1)
    step(resumed, again, 1)
    assert isinstance(optimizer, MasterAdamW) and isinstance(again, MasterAdamW)
    for mine, theirs in zip(optimizer.masters.values(), again.masters.values(), strict=True):
        assert torch.equal(mine, theirs)
