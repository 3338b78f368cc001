r"""A vLLM server as the engine of rollouts, spoken to over HTTP.

Start it so that its log-probs are those of the distribution it draws from, and with the routes that
take new weights:

    VLLM_SERVER_DEV_MODE=1 VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 \
        vllm serve MODEL --logprobs-mode processed_logprobs

Prompts go as chat messages with their media inside; tokens and log-probs come back.  Weights go
through a folder that both sides can read.  The protocol is tested against a local server that
answers in the same form; it has not been run against vLLM on a GPU.
"""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from core_rl.config import EngineConfig
from core_rl.hf.engine import Chat, Completion, Drawing

try:
    import httpx
except ImportError as error:
    raise ImportError(
        "rollout.engine.kind=vllm needs httpx: pip install 'people-focus-rl[judge]'"
    ) from error

log = logging.getLogger(__name__)
# One line a request would drown the run's own log.
logging.getLogger("httpx").setLevel(logging.WARNING)

_RETRIED_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_MAX_WAIT = 30.0  # seconds between two attempts
_NEVER = -100.0  # logit bias of a token that must not be drawn


class VLLMServer:
    """Client of a running server.

    Args:
        config: its address and how patient to be.

    Raises:
        ValueError: the server cannot be reached or refuses a request; the message says what it
            answered.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self._client = httpx.Client(base_url=config.url.rstrip("/"), timeout=config.timeout)
        self._model = config.model or self._first_model()
        self._adapter: str | None = None
        self._adapters = 0

    def complete(self, chats: Sequence[Chat], drawing: Drawing) -> list[list[Completion]]:
        with ThreadPoolExecutor(min(self.config.concurrency, max(len(chats), 1))) as pool:
            # Drawn here, in order: the threads would take them as they come.
            seeds = [random.getrandbits(31) for _ in chats]
            return list(pool.map(self._complete, chats, seeds, [drawing] * len(chats)))

    def load_weights(self, folder: Path) -> None:
        where = str(folder.resolve())
        self._post(
            "/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": where}}
        )
        # What is kept of prompts was computed with the old weights.
        self._post("/reset_prefix_cache", {})

    def load_adapter(self, folder: Path) -> None:
        before = self._adapter
        self._adapters += 1
        self._adapter = f"policy-{self._adapters}"
        self._post(
            "/v1/load_lora_adapter",
            {"lora_name": self._adapter, "lora_path": str(folder.resolve())},
        )
        if before is not None:
            self._post("/v1/unload_lora_adapter", {"lora_name": before})

    def _first_model(self) -> str:
        listed = self._request("GET", "/v1/models", None).json().get("data", [])
        if not listed:
            raise ValueError(f"{self.config.url}/v1/models lists no model: is it a vLLM server?")
        return str(listed[0]["id"])

    def _complete(self, chat: Chat, seed: int, drawing: Drawing) -> list[Completion]:
        answer = self._post(
            "/v1/chat/completions",
            {
                "model": self._adapter or self._model,
                "messages": list(chat.messages),
                "n": drawing.count,
                "temperature": drawing.temperature,
                "top_p": 1.0,
                "top_k": -1,
                "seed": seed,
                "max_completion_tokens": drawing.max_new,
                "stop_token_ids": list(drawing.stop_ids),
                "logit_bias": {str(index): _NEVER for index in drawing.suppress_ids},
                "logprobs": True,
                "return_token_ids": True,
                "skip_special_tokens": False,
                **chat.options,
            },
        )
        self._check_prompt(chat, answer.get("prompt_token_ids"))
        choices = sorted(answer["choices"], key=lambda choice: choice["index"])
        if len(choices) != drawing.count:
            raise ValueError(f"the engine gave {len(choices)} of {drawing.count} candidates")
        return [_completion(choice, drawing) for choice in choices]

    def _check_prompt(self, chat: Chat, ids: Sequence[int] | None) -> None:
        """Refuse a prompt that the engine reads differently: its candidates answer another one."""
        if ids is None:
            raise ValueError(
                f"{self.config.url} returns no token ids: it needs vLLM from 0.10.2 on"
            )
        if tuple(ids) != chat.prompt_ids:
            same = (one == two for one, two in zip(ids, chat.prompt_ids, strict=False))
            where = sum(1 for _ in itertools.takewhile(bool, same))
            raise ValueError(
                f"the engine's prompt has {len(ids)} tokens, ours {len(chat.prompt_ids)}, and they "
                f"part at token {where}: serve the same checkpoint, with its chat template and the "
                "media settings of this run"
            )

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        content = self._request("POST", path, body)
        try:
            return dict(content.json())
        except ValueError:  # some routes answer with plain text or nothing
            return {}

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        problem = ""
        for attempt in range(self.config.retries + 1):
            if attempt:
                time.sleep(min(_MAX_WAIT, 0.5 * 2**attempt) * random.uniform(0.5, 1.0))
            try:
                answer = self._client.request(method, path, json=body)
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            if answer.is_success:
                return answer
            problem = f"status {answer.status_code}: {answer.text[:300]}"
            if answer.status_code not in _RETRIED_STATUS:
                break
        raise ValueError(
            f"rollout.engine.url={self.config.url}: {method} {path}: {problem}; is the server up, "
            "and started with VLLM_SERVER_DEV_MODE=1?"
        )


def _completion(choice: Mapping[str, Any], drawing: Drawing) -> Completion:
    ids = tuple(choice["token_ids"])
    logp = tuple(entry["logprob"] for entry in choice["logprobs"]["content"])
    if len(ids) != len(logp) or not ids:
        raise ValueError(f"the engine gave {len(ids)} tokens with {len(logp)} log-probs")
    if choice["finish_reason"] == "stop" and ids[-1] not in drawing.stop_ids:
        raise ValueError(
            f"a candidate stopped at token {ids[-1]}, which is not among the stop ids "
            f"{sorted(drawing.stop_ids)}: the engine must stop where the policy does"
        )
    return Completion(ids, logp)
