"""A server on this machine that speaks vLLM's protocol, with a policy of ours inside."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from core_rl.hf.policy import HFPolicy

# Finds the query that a request's messages ask.
FindQuery = Callable[[Sequence[dict[str, Any]]], Any]


class EngineServer(ThreadingHTTPServer):
    """Draws with its own copy of the weights until it is given others."""

    daemon_threads = True

    def __init__(self, policy: HFPolicy, find: FindQuery) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.policy = policy
        self.find = find
        self.lock = threading.Lock()
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.failures = 0  # requests to refuse with a busy status first

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

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


class _Handler(BaseHTTPRequestHandler):
    server: EngineServer

    def do_GET(self) -> None:
        self._answer(200, {"data": [{"id": "thinker"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.requests.append((self.path, body))
            if self.server.failures > 0:
                self.server.failures -= 1
                self._answer(503, {"error": "busy"})
                return
            answer: dict[str, Any] = {}
            if self.path == "/v1/chat/completions":
                answer = self.server.complete(body)
            elif self.path == "/collective_rpc":
                assert body["method"] == "reload_weights"
                self.server.take_weights(body["kwargs"]["weights_path"])
        self._answer(200, answer)

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def serving(policy: HFPolicy, find: FindQuery) -> Iterator[EngineServer]:
    """Serve a policy while the block runs."""
    server = EngineServer(policy, find)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
