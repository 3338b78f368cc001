"""Candidates that a server of vLLM's protocol draws, over real HTTP."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core_rl.config import EngineConfig, EngineKind
from core_rl.hf.policy import HFPolicy
from core_rl.loop.optim import build_optimizer
from core_rl.loss_config import KLConfig, LossConfig, MismatchConfig
from core_rl.objective.mismatch import mismatch_weights
from core_rl.servers.rollout_engine import Chat, Drawing, EngineSampler
from core_rl.servers.vllm import VLLMServer
from core_rl.types import Actions
from tests.core_rl.hf.text_policy import (
    QUERIES,
    TextPolicy,
    build_model,
    build_policy,
    gradients,
    with_adapters,
)
from tests.core_rl.servers.engine_server import EngineServer, serving
from tests.core_rl.toy import grpo, module_of, phases


@pytest.fixture(autouse=True)
def _seed() -> None:
    random.seed(1)  # the seeds that the engine is asked with come from here


@pytest.fixture
def policy() -> TextPolicy:
    return build_policy()


@pytest.fixture
def server() -> Iterator[EngineServer]:
    with serving(build_policy(), lambda messages: messages[-1]["content"]) as running:
        yield running


def write_chat(query: str, prompt_ids: tuple[int, ...]) -> Chat:
    return Chat([{"role": "user", "content": query}], prompt_ids)


def config(server: EngineServer, **changes: Any) -> EngineConfig:
    return replace(EngineConfig(kind=EngineKind.vllm, url=server.url, retries=0), **changes)


def sampler(server: EngineServer, folder: Path) -> EngineSampler:
    return EngineSampler(VLLMServer(config(server)), write_chat, 4, folder)


def draw(sampler: EngineSampler, policy: HFPolicy) -> Actions:
    return sampler(policy, policy.encode(QUERIES), QUERIES, 1.0)


def weight_extremes(actions: Actions) -> tuple[float, float]:
    assert actions.logp_BGT is not None and actions.engine_logp_BGT is not None
    weight, _ = mismatch_weights(
        actions.logp_BGT, actions.engine_logp_BGT, actions.mask_BGT, MismatchConfig(cap=1e6)
    )
    return float(weight.min()), float(weight.max())


def test_with_the_same_weights_engine_and_policy_agree(
    policy: TextPolicy, server: EngineServer, tmp_path: Path
) -> None:
    actions = draw(sampler(server, tmp_path), policy)
    assert actions.ids_BGT.shape[:2] == (len(QUERIES), 4)
    assert weight_extremes(actions) == pytest.approx((1.0, 1.0), abs=1e-4)
    assert len({text for row in actions.texts for text in row}) > 4
    assert actions.truncated_BG is not None
    assert actions.truncated_BG.any() and not actions.truncated_BG.all()
    lengths_BG = actions.mask_BGT.sum(-1)
    assert (lengths_BG[actions.truncated_BG] == policy.max_completion).all()


def test_weights_follow_the_policy_and_only_when_they_changed(
    policy: TextPolicy, server: EngineServer, tmp_path: Path
) -> None:
    drawing = sampler(server, tmp_path)
    draw(drawing, policy)
    draw(drawing, policy)
    assert len(server.asked("/collective_rpc")) == 1
    optimizer = build_optimizer(policy, lr=0.01)
    policy.log_probs(policy.encode(QUERIES), draw(drawing, policy)).logp_BGT.sum().backward()
    optimizer.step()
    actions = draw(drawing, policy)
    assert len(server.asked("/collective_rpc")) == 2
    assert len(server.asked("/reset_prefix_cache")) == 2
    assert weight_extremes(actions) == pytest.approx((1.0, 1.0), abs=1e-3)
    assert list(tmp_path.iterdir()) == []  # nothing is left of what passed through


def test_stale_weights_show_in_the_importance_weights(
    policy: TextPolicy, server: EngineServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EngineServer, "take_weights", lambda self, folder: None)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.1)
    low, high = weight_extremes(draw(sampler(server, tmp_path), policy))
    assert low < 0.9 and high > 1.1


def test_a_prompt_that_the_engine_reads_differently_is_refused(
    policy: TextPolicy, tmp_path: Path
) -> None:
    with (
        serving(build_policy(), lambda messages: messages[-1]["content"] + "!") as server,
        pytest.raises(ValueError, match="part at token 2: serve the same checkpoint"),
    ):
        draw(sampler(server, tmp_path), policy)


def test_a_busy_server_is_asked_again_and_a_wrong_one_is_named(
    server: EngineServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core_rl.servers.endpoint.MAX_WAIT", 0.0)
    drawing = Drawing(2, 1.0, 5, tuple(build_policy().stop_ids.tolist()), (*range(1, 60, 4), 258))
    ids = tuple(build_policy().tokenizer("hi")["input_ids"])
    patient = VLLMServer(config(server, retries=2))
    server.failures = 2
    assert len(patient.complete([write_chat("hi", ids)], drawing)[0]) == 2
    server.failures = 3
    with pytest.raises(ValueError, match=r"rollout.engine.url=.*status 503"):
        patient.complete([write_chat("hi", ids)], drawing)


def test_no_server_is_said_so() -> None:
    nobody = EngineConfig(kind=EngineKind.vllm, url="http://127.0.0.1:9", retries=0)
    with pytest.raises(ValueError, match=r"rollout.engine.url=http://127.0.0.1:9: GET /v1/models"):
        VLLMServer(nobody)


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_a_step_on_what_the_engine_drew_has_the_gradient_of_one_drawn_here(
    policy: TextPolicy, server: EngineServer, tmp_path: Path
) -> None:
    def short(queries: Sequence[str], actions: Actions) -> list[list[float]]:
        return [[-float(n) for n in row] for row in actions.mask_BGT.sum(-1).tolist()]

    loss = LossConfig(kl=KLConfig(weight=0.0))
    module = module_of(policy, short, phases(grpo(1)), loss, sampler=sampler(server, tmp_path))  # type: ignore[arg-type]
    drawn = gradients(policy, module.training_step(QUERIES, 0))
    group = module.last_group
    assert group is not None and group.mixed_B.any()
    assert drawn.abs().max() > 0
    here = replace(group, actions=replace(group.actions, engine_logp_BGT=None))
    torch.testing.assert_close(
        gradients(policy, module.training_step(here, 0)), drawn, atol=1e-5, rtol=1e-3
    )


def test_adapters_are_loaded_under_a_new_name_each_time(
    server: EngineServer, tmp_path: Path
) -> None:
    engine = VLLMServer(config(server))
    engine.load_adapter(tmp_path)
    engine.load_adapter(tmp_path)
    names = [body["lora_name"] for body in server.asked("/v1/load_lora_adapter")]
    assert names == ["policy-1", "policy-2"]
    assert [b["lora_name"] for b in server.asked("/v1/unload_lora_adapter")] == ["policy-1"]


@pytest.mark.parametrize("rank", ["0", "1"])
def test_every_process_draws_with_the_adapter_that_the_main_one_handed_over(
    rank: str, server: EngineServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", rank)
    policy = build_policy(model=with_adapters(build_model()))
    drawing = sampler(server, tmp_path)
    draw(drawing, policy)
    with torch.no_grad():
        next(p for p in policy.parameters() if p.requires_grad).mul_(2.0)
    draw(drawing, policy)
    models = [body["model"] for body in server.asked("/v1/chat/completions")]
    assert models == ["policy-1"] * len(QUERIES) + ["policy-2"] * len(QUERIES)
    assert len(server.asked("/v1/load_lora_adapter")) == (2 if rank == "0" else 0)
    assert list(tmp_path.iterdir()) == []
