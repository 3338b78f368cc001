r"""A vLLM server as the rollout engine, over HTTP.

Start it with log-probs of the distribution it draws from, and with the routes for new weights:

    VLLM_SERVER_DEV_MODE=1 VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 \
        vllm serve MODEL --logprobs-mode processed_logprobs

Prompts are sent as chat messages with their media; tokens and log-probs are returned.  Weights go
through a folder that both sides can read.  The protocol is tested against a local server with the
same answers; it has not been run against vLLM on a GPU.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from core_rl.config import EngineConfig
from core_rl.hardware import is_main_process
from core_rl.servers.endpoint import Client, Endpoint, Response, ask_all
from core_rl.servers.rollout_engine import Chat, Completion, Drawing

_NEVER = -100.0  # logit bias of a token that must not be drawn


class VLLMServer:
    """Client of a running server.

    Args:
        config: its address, time limits and retries.

    Raises:
        EndpointError: the server cannot be reached or refuses a request; the message says what it
            answered.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self._endpoint = Endpoint(
            name="rollout.engine.url",
            url=config.url,
            cure="is the server up, and started with VLLM_SERVER_DEV_MODE=1?",
            concurrency=config.concurrency,
            timeout=config.timeout,
            retries=config.retries,
        )
        self._model = config.model or self._first_model()
        self._adapter: str | None = None
        self._adapters = 0

    def complete(self, chats: Sequence[Chat], drawing: Drawing) -> list[list[Completion]]:
        # Seeds are drawn here, because requests run in any order.
        seeded = [(chat, random.getrandbits(31)) for chat in chats]
        return ask_all(self._endpoint, seeded, partial(self._complete, drawing))

    def load_weights(self, folder: Path) -> None:
        if not is_main_process():
            return
        where = str(folder.resolve())
        self._ask("collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": where}})
        # The cached prompts were computed with the old weights.
        self._ask("reset_prefix_cache", {})

    def load_adapter(self, folder: Path) -> None:
        before = self._adapter
        self._adapters += 1
        self._adapter = f"policy-{self._adapters}"
        if not is_main_process():
            return
        self._ask(
            "v1/load_lora_adapter",
            {"lora_name": self._adapter, "lora_path": str(folder.resolve())},
        )
        if before is not None:
            self._ask("v1/unload_lora_adapter", {"lora_name": before})

    def _first_model(self) -> str:
        listed = self._ask("v1/models", None).get("data")
        if not listed:
            raise ValueError(f"{self.config.url}/v1/models lists no model: is it a vLLM server?")
        return str(listed[0]["id"])

    async def _complete(
        self, drawing: Drawing, client: Client, seeded: tuple[Chat, int]
    ) -> list[Completion]:
        chat, seed = seeded
        answer = await client.ask(
            "v1/chat/completions",
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
            _fields,
        )
        self._check_prompt(chat, answer.get("prompt_token_ids"))
        choices = sorted(answer["choices"], key=lambda choice: choice["index"])
        if len(choices) != drawing.count:
            raise ValueError(f"the engine gave {len(choices)} of {drawing.count} candidates")
        return [_completion(choice, drawing) for choice in choices]

    def _check_prompt(self, chat: Chat, ids: Sequence[int] | None) -> None:
        """Refuse candidates of a prompt that the engine has tokenised differently."""
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

    def _ask(self, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        [answer] = ask_all(
            self._endpoint, [body], lambda client, one: client.ask(path, one, _fields)
        )
        return answer


def _fields(answer: Response) -> dict[str, Any]:
    try:
        return dict(answer.json())
    except (ValueError, TypeError):  # some routes answer with plain text or nothing
        return {}


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
