"""A clip with sound is seen and heard once for all candidates of a question."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from omni_rl.data.record import Record
from omni_rl.policy.policy import OmniPolicy
from tests.core_rl.hf.text_policy import gradients, ragged, weighted_sum

GROUP = 8


def counted(policy: OmniPolicy) -> dict[str, int]:
    """How often each tower runs from now on."""
    calls = {"visual": 0, "audio_tower": 0}
    for name in calls:

        def note(*_: object, name: str = name) -> None:
            calls[name] += 1

        getattr(policy.model.model, name).register_forward_hook(note)
    return calls


def step(policy: OmniPolicy, records: list[Record]) -> None:
    """What one on-policy update does to the model."""
    prompt = policy.encode(records)
    actions = policy.sample(prompt, GROUP)
    weighted_sum(policy.log_probs(prompt, actions).logp_BGT).backward()


@pytest.mark.parametrize("together", [False, True], ids=["apart", "interleaved"])
def test_each_tower_runs_once_a_question_and_step(
    fresh_policy: Callable[..., OmniPolicy], records: list[Record], together: bool
) -> None:
    policy = fresh_policy(together=together).train()
    calls = counted(policy)
    step(policy, records[:1])
    # One comparison with copies comes before the first step.
    assert calls == {"visual": 3, "audio_tower": 3}
    step(policy, records[:1])
    assert calls == {"visual": 4, "audio_tower": 4}
    step(policy, [records[0], records[2]])
    assert calls == {"visual": 6, "audio_tower": 6}


def test_the_count_sees_copies(
    fresh_policy: Callable[..., OmniPolicy], records: list[Record]
) -> None:
    """With sharing off the towers run again for the log-probs, on all copies."""
    policy = fresh_policy().train()
    policy.shared_prompt = False
    calls = counted(policy)
    step(policy, records[:1])
    assert min(calls.values()) > 1


@pytest.mark.parametrize("together", [False, True], ids=["apart", "interleaved"])
@pytest.mark.parametrize("fused", [False, True], ids=["model", "fused"])
def test_a_step_is_that_of_copies(
    fresh_policy: Callable[..., OmniPolicy], records: list[Record], together: bool, fused: bool
) -> None:
    policy = fresh_policy(together=together).train()
    policy.fused_decode = fused
    torch.manual_seed(4)
    prompt = policy.encode(records[:1])
    actions = policy.sample(prompt, GROUP)
    assert ragged(actions)
    shared = policy.log_probs(prompt, actions).logp_BGT
    torch.testing.assert_close(shared, actions.logp_BGT, atol=1e-4, rtol=0)
    policy.shared_prompt = False
    copies = policy.log_probs(policy.encode(records[:1]), actions).logp_BGT
    torch.testing.assert_close(shared, copies, atol=1e-5, rtol=0)
    one, other = (gradients(policy, weighted_sum(logp)) for logp in (shared, copies))
    assert (one - other).norm() <= 1e-4 * other.norm()
