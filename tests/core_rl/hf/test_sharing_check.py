"""Sharing is compared with copies before it is relied on."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from core_rl.hf import policy as policies
from core_rl.hf import sharing_check
from core_rl.hf.sharing_check import _graph_bytes, attention_window, length_limit, probe
from core_rl.types import Actions
from tests.core_rl.hf.text_policy import (
    QUERIES,
    SUPPRESSED,
    TextPolicy,
    build_model,
    build_policy,
    with_adapters,
)


@pytest.fixture
def policy() -> TextPolicy:
    return build_policy(compare=True).train()


def test_a_model_that_agrees_is_compared_once_and_shares(
    policy: TextPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[bool] = []
    real = policies.why_different

    def counted(*args: Any) -> str | None:
        compared.append(torch.is_grad_enabled())
        return real(*args)

    monkeypatch.setattr(policies, "why_different", counted)
    with torch.no_grad():
        assert policy.encode(QUERIES).prefixes is not None
    for _ in range(2):
        assert policy.encode(QUERIES).prefixes is not None
    with torch.no_grad():
        policy.encode(QUERIES)
    assert compared == [False, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("recompute", ["auto", "layers", "never"])
def test_healthy_models_agree_in_every_precision(recompute: str, dtype: torch.dtype) -> None:
    policy = build_policy(model=build_model().to(dtype), recompute=recompute, compare=True).train()
    assert policy.encode(QUERIES).prefixes is not None
    assert policy._reason == ""


def test_adapters_agree() -> None:
    policy = build_policy(model=with_adapters(build_model()), compare=True).train()
    assert policy.encode(QUERIES).prefixes is not None


def planted(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    real = policies.score_candidates

    def changed(*args: Any) -> Tensor:
        return change(real(*args))

    monkeypatch.setattr(policies, "score_candidates", changed)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda logp: logp + 0.01, "log-probs would differ by 0.01 nats"),
        (lambda logp: logp * float("nan"), "log-probs would differ by nan nats"),
        (lambda logp: 2 * logp - logp.detach(), "gradients would differ by 100%"),
    ],
    ids=["values", "nan", "gradient"],
)
def test_other_numbers_end_sharing(
    policy: TextPolicy,
    change: Any,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    planted(monkeypatch, change)
    with caplog.at_level(logging.INFO):
        assert policy.encode(QUERIES).prefixes is None
        assert policy.encode(QUERIES).prefixes is None
    assert caplog.text.count(said) == 1


def test_no_gradient_is_compared_where_the_copies_would_be_the_peak_of_the_run(
    policy: TextPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph of copies that is larger than the limit is never built."""
    planted(monkeypatch, lambda logp: 2 * logp - logp.detach())
    assert _graph_bytes(policy.model, 10) == 24 * 32 * 2 * 10 * 4
    monkeypatch.setattr(sharing_check, "LIGHT", 0)
    with_graph: list[bool] = []
    real = policies.score_with_copies

    def noted(*args: Any) -> Tensor:
        found = real(*args)
        with_graph.append(found.requires_grad)
        return found

    monkeypatch.setattr(policies, "score_with_copies", noted)
    assert policy.encode(QUERIES).prefixes is not None
    assert with_graph == [False]


def test_an_error_of_the_shared_pass_ends_sharing_and_a_lack_of_memory_does_not(
    policy: TextPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(error: Exception) -> Any:
        def raising(_: Tensor) -> Tensor:
            raise error

        return raising

    with monkeypatch.context() as patched:
        planted(patched, fails(torch.OutOfMemoryError("no memory")))
        with pytest.raises(torch.OutOfMemoryError):
            policy.encode(QUERIES)
    policy._compared.clear()
    planted(monkeypatch, fails(KeyError("some layer")))
    assert policy.encode(QUERIES).prefixes is None
    assert "it raises KeyError: 'some layer'" in policy._reason


def test_what_is_compared_may_be_drawn_and_takes_no_random_number() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    words = [*SUPPRESSED, 3, 7]
    found = probe(words, torch.tensor(SUPPRESSED), torch.device("cpu"))
    assert isinstance(found, Actions) and found.ids_BGT.shape == (1, 2, 3)
    assert found.ids_BGT.flatten().tolist() == [3, 7] * 3
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_positions_that_change_with_the_length_are_refused_beyond_it(kind: str) -> None:
    rope: dict[str, Any] = {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0}
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
        rope |= {"original_max_position_embeddings": 40}
    limit = 40 if kind == "longrope" else 256
    model = build_model("llama", rope_parameters=rope)
    assert length_limit(model.config) == limit
    policy = build_policy(model=model, compare=True)
    for shared in (True, False):
        policy.shared_prompt = shared
        policy.sample(policy.encode(["x" * (limit - 9)]), 2)
        with pytest.raises(ValueError, match=f"go beyond {limit}.*rollout.max_prompt"):
            policy.sample(policy.encode(["x" * (limit - 8)]), 2)


def test_a_window_ends_sharing_at_the_first_prompt_that_reaches_it() -> None:
    policy = build_policy(compare=True)
    policy.model.config.sliding_window = 20
    assert attention_window(policy.model.config) == 20
    assert policy.encode(["x" * 11]).prefixes is not None
    assert policy.encode(["x" * 12]).prefixes is None
    assert "the last 20 tokens only" in policy._reason
