"""A server on this machine that speaks vLLM's protocol, with a policy of ours inside."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from core_rl.hf.policy import HFPolicy
from tests.local_server import LocalServer, Reply, running

# Finds the query that a request's messages ask.
FindQuery = Callable[[Sequence[dict[str, Any]]], Any]


class EngineServer(LocalServer):
    """Draws with its own copy of the weights until it is given others."""

    def __init__(self, policy: HFPolicy, find: FindQuery) -> None:
        super().__init__()
        self.policy = policy
        self.find = find
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.failures = 0  # requests to refuse with a busy status first

    def reply(self, method: str, path: str, headers: Mapping[str, str], body: str) -> Reply:
        if method == "GET":
            return _reply({"data": [{"id": "thinker"}]})
        asked = json.loads(body)
        with self.lock:
            self.requests.append((path, asked))
            if self.failures > 0:
                self.failures -= 1
                return _reply({"error": "busy"}, 503)
            if path == "/v1/chat/completions":
                return _reply(self.complete(asked))
            if path == "/collective_rpc":
                assert asked["method"] == "reload_weights"
                self.take_weights(asked["kwargs"]["weights_path"])
        return _reply({})

    def asked(self, path: str) -> list[dict[str, Any]]:
        return [body for where, body in self.requests if where == path]

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        torch.manual_seed(body["seed"])
        assert body["stop_token_ids"] == self.policy.stop_ids.tolist()
        assert [int(i) for i in body["logit_bias"]] == self.policy.suppress_ids.tolist()
        self.policy.max_completion = body["max_completion_tokens"]
        prompt = self.policy.encode([self.find(body["messages"])])
        drawn = self.policy.sample(prompt, body["n"], body["temperature"])
        assert drawn.logp_BGT is not None and drawn.truncated_BG is not None
        choices = []
        for g in range(body["n"]):
            mask = drawn.mask_BGT[0, g]
            logp = drawn.logp_BGT[0, g][mask].tolist()
            cut = bool(drawn.truncated_BG[0, g])
            choices.append(
                {
                    "index": g,
                    "token_ids": drawn.ids_BGT[0, g][mask].tolist(),
                    "logprobs": {"content": [{"logprob": value} for value in logp]},
                    "finish_reason": "length" if cut else "stop",
                }
            )
        ids = self.policy.prompt_ids(prompt)[0]
        return {"choices": choices[::-1], "prompt_token_ids": ids}  # in no particular order

    def take_weights(self, folder: str) -> None:
        saved = type(self.policy.model).from_pretrained(folder)
        self.policy.model.load_state_dict(saved.state_dict())


def _reply(values: dict[str, Any], status: int = 200) -> Reply:
    return Reply(status, json.dumps(values).encode())


def serving(policy: HFPolicy, find: FindQuery) -> AbstractContextManager[EngineServer]:
    """Serve a policy while the block runs."""
    return running(EngineServer(policy, find))
