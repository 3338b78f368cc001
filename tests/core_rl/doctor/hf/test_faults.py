"""Faults planted one at a time in drawing and scoring: the checks name each, and clear the healthy.

The same checks run over each spoiled policy, and the failing line must hold a word of the true
cause.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from core_rl.doctor.findings import Finding, Verdict
from core_rl.doctor.hf.checks import check_policy
from core_rl.hf.policy import HFPolicy
from tests.core_rl.hf import faulty_policies as faulty
from tests.core_rl.hf.faulty_policies import built
from tests.core_rl.hf.text_policy import (
    QUERIES,
    STOPS,
    TextPolicy,
    build_model,
    build_policy,
    with_adapters,
)

TEMPERATURE = 0.8


def bad(findings: Sequence[Finding]) -> dict[str, str]:
    return {one.check: one.cause for one in findings if one.verdict is Verdict.fail}


def examined(policy: HFPolicy, seed: int = 0) -> dict[str, str]:
    torch.manual_seed(seed)
    return bad(check_policy(policy, QUERIES, temperature=TEMPERATURE, max_new=9))


@dataclass(frozen=True)
class Planted:
    """A fault, the check that must fail over it and words of the cause it must give."""

    name: str
    make: Callable[[], TextPolicy]
    check: str
    says: str


def stop_suppressed() -> TextPolicy:
    return built(TextPolicy, suppress_ids=[256, 258])


def not_finite() -> TextPolicy:
    policy = built(TextPolicy)
    policy.model.lm_head.weight.data[:5, 0] = torch.inf
    return policy


FAULTS = [
    Planted(
        "train mode + reentrant checkpointing",
        lambda: built(faulty.Generates, reentrant=True),
        "parity/decoding_max",
        "lost cache",
    ),
    Planted(
        "train mode + checkpointing without reentrant",
        lambda: built(faulty.Generates, reentrant=False),
        "cache/length",
        "lost cache",
    ),
    Planted(
        "first prompt for the batch",
        lambda: built(faulty.FirstPromptForAll),
        "prompts/own",
        "first sample",
    ),
    Planted(
        "first cache for the batch",
        lambda: built(faulty.FirstCacheForAll),
        "parity/decoding_max",
        "first prompt was reused",
    ),
    Planted(
        "candidates change hands",
        lambda: built(faulty.MixedUpRows),
        "parity/training_max",
        "mixed up",
    ),
    Planted(
        "right padding", lambda: built(faulty.PadsRight), "prompts/padding_left", "right padding"
    ),
    Planted(
        "mask ignored",
        lambda: built(faulty.IgnoresMask),
        "parity/decoding_max",
        "attention mask is ignored",
    ),
    Planted(
        "positions off by one",
        lambda: built(faulty.OffByOne, shared_prompt=False),
        "parity/training_max",
        "off by +1",
    ),
    Planted(
        "positions count pads",
        lambda: built(faulty.CountsPads, shared_prompt=False),
        "parity/decoding_max",
        "by the padding",
    ),
    Planted(
        "scored without temperature",
        lambda: built(faulty.ScoresCold),
        "parity/training_max",
        "temperature mismatch: log-probs are those of temperature 1 ",
    ),
    Planted(
        "drawn too hot",
        lambda: built(faulty.DrawsHot),
        "parity/decoding_max",
        "of temperature 1.36",
    ),
    Planted("warped by top-k", lambda: built(faulty.Warped), "parity/decoding_max", "top_k=20"),
    Planted(
        "warped by top-p",
        lambda: built(faulty.NucleusWarped),
        "parity/decoding_max",
        "warped scores",
    ),
    Planted(
        "suppressed ids in training",
        lambda: built(faulty.Unmasked),
        "parity/training_max",
        "suppressed ids",
    ),
    Planted(
        "suppressed ids drawn",
        lambda: built(faulty.DrawsForbidden),
        "sampling/suppressed",
        "was sampled",
    ),
    Planted("labels shifted", lambda: built(faulty.ShiftsLabels), "parity/training_max", "shifted"),
    Planted("prompt truncated", lambda: built(faulty.CutsPrompt), "prompts/own", "truncated"),
    Planted(
        "stale rollout weights",
        lambda: built(faulty.StaleSampler),
        "parity/decoding_max",
        "stale rollout weights",
    ),
    Planted(
        "rollout in bfloat16",
        lambda: built(faulty.HalfPrecisionRollout),
        "parity/decoding_max",
        "lower precision",
    ),
    Planted(
        "dropout", lambda: built(faulty.Drops, shared_prompt=False), "parity/repeatable", "dropout"
    ),
    Planted("stop id suppressed", stop_suppressed, "tokens/stop_reachable", "no stop id"),
    Planted(
        "greedy", lambda: built(faulty.Greedy), "sampling/from_distribution", "greedy decoding"
    ),
    Planted(
        "drawn hotter than scored",
        lambda: built(faulty.Feverish),
        "sampling/from_distribution",
        "a higher temperature",
    ),
    Planted(
        "one seed for all candidates",
        lambda: built(faulty.SeedsEachCandidate),
        "sampling/copies",
        "copies of each other",
    ),
    Planted(
        "texts mixed up", lambda: built(faulty.MixesTexts), "sampling/texts", "other candidates"
    ),
    Planted(
        "end token masked",
        lambda: built(faulty.MasksTheEnd, stop_ids=[256, *STOPS]),
        "sampling/ends",
        "never learns to stop",
    ),
    Planted(
        "padding learned from",
        lambda: built(faulty.LearnsPadding, stop_ids=[256, *STOPS]),
        "sampling/ends",
        "after the end",
    ),
    Planted("weights not finite", not_finite, "weights/not_finite", "lm_head"),
]


@pytest.mark.parametrize("planted", FAULTS, ids=lambda planted: planted.name)
def test_the_cause_of_a_planted_fault_is_named(planted: Planted) -> None:
    found = examined(planted.make())
    assert planted.says in found.get(planted.check, ""), found


@pytest.mark.parametrize("family", ["qwen2", "llama"])
@pytest.mark.parametrize("reentrant", [None, True, False])
def test_a_healthy_policy_is_cleared(family: str, reentrant: bool | None) -> None:
    policy = built(TextPolicy, reentrant, family=family)
    for seed in range(4):
        assert examined(policy, seed) == {}
    assert examined(built(TextPolicy, reentrant, family=family, shared_prompt=False)) == {}


def test_adapters_on_the_embedding_are_no_fault() -> None:
    model = with_adapters(build_model(), target_modules=["q_proj", "embed_tokens"])
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)
    assert examined(build_policy(model=model)) == {}


def test_a_prompt_that_the_query_never_reaches_is_warned_of() -> None:
    """A warning only: data may hold a question twice."""
    found = {
        one.check: one for one in check_policy(built(faulty.OnePromptForEver), QUERIES, max_new=4)
    }
    assert found["prompts/differ"].verdict is Verdict.warn
    assert "one and the same input" in found["prompts/differ"].cause


def test_ragged_completions_are_cleared() -> None:
    for seed in range(4):
        assert examined(built(TextPolicy, stop_ids=[256, *STOPS]), seed) == {}
        assert examined(built(faulty.Generates, stop_ids=[256, *STOPS]), seed) == {}


def test_plain_generate_in_eval_mode_is_healthy() -> None:
    policy = built(faulty.Generates)
    for seed in range(4):
        assert examined(policy, seed) == {}
