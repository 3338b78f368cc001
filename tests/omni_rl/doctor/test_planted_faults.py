"""Every planted fault is found and named; nothing is said of a healthy policy."""

from __future__ import annotations

import copy

import pytest
import torch

from omni_rl.doctor.gate import examine, probe_records
from tests.omni_rl.doctor.media_faults import HEALTHY, MEDIA_FAULTS, Fault
from tests.omni_rl.doctor.selftest import PROBE, Bench, failures, row
from tests.omni_rl.doctor.signal_faults import SIGNAL_FAULTS, Find


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)  # no test may hang on what the ones before it drew


@pytest.fixture
def bench(fresh_policy, splits) -> Bench:
    return Bench(fresh_policy(early=False), probe_records(splits.train))


@pytest.mark.parametrize("fault", MEDIA_FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_named_first(fault: Fault, bench: Bench) -> None:
    found = bench.failures(fault)
    assert found, "nothing failed"
    assert fault.says in found[0].cause
    assert found[0].cure


@pytest.mark.parametrize(("name", "says", "find"), SIGNAL_FAULTS, ids=lambda value: str(value)[:20])
def test_a_fault_of_weights_or_rewards_is_named_first(
    name: str, says: str, find: Find, bench: Bench
) -> None:
    found = failures(find(bench.policy(), bench.single))
    assert found, "nothing failed"
    assert says in found[0].cause


def test_a_fault_that_is_missed_or_misnamed_shows_in_the_matrix(bench: Bench) -> None:
    fault = MEDIA_FAULTS[0]
    found = bench.failures(fault)
    assert row(fault.name, fault.says, found)["named"] is True
    assert row(fault.name, "another cause", found)["named"] is False
    assert row(fault.name, fault.says, [])["named"] is False


@pytest.mark.parametrize("together", [False, True], ids=["apart", "together"])
@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_said_of_a_healthy_policy(name: str, together: bool, bench: Bench) -> None:
    assert bench.alarms(name, together) == []


def test_the_policy_is_left_as_it_was(bench: Bench) -> None:
    policy = bench.policy().train()
    before = copy.deepcopy(policy.state_dict())
    modes = [module.training for module in policy.modules()]
    limits, collate = policy.max_completion, policy.collate
    examine(policy, bench.double, PROBE)
    assert [module.training for module in policy.modules()] == modes
    assert (policy.max_completion, policy.collate) == (limits, collate)
    assert all((policy.state_dict()[name] == value).all() for name, value in before.items())
    assert not any(module._forward_pre_hooks for module in policy.modules())
    assert not any(module._forward_hooks for module in policy.modules())
