"""An OpenAI-compatible server on this machine: real HTTP, replies as vLLM lays them out.

Its model is a rule: the probability of a token falls with its length and place, so that a test can
work out every score by hand.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from tests.local_server import LocalServer, Reply, running

Json = dict[str, Any]
# How often this body came and the path -> a status instead of an answer, or None to answer.
Plan = Callable[[int, str], int | None]


def tokens_of(text: str) -> list[str]:
    """Cut words, each with the space before it, and marks."""
    return re.findall(r" ?\w+|\s|[^\w\s]", text)


def logprob_of(tokens: list[str], place: int) -> float:
    return -0.01 * len(tokens[place]) - 0.001 * place


def text_of(messages: list[Json]) -> str:
    """Lay out a chat; a picture is a token of the length of its data."""
    said = []
    for turn in messages:
        parts = turn["content"]
        if isinstance(parts, str):
            said.append(f"[{turn['role']}]{parts}")
            continue
        pieces = [
            f"<{len(part['image_url']['url'])}>" if part["type"] == "image_url" else part["text"]
            for part in parts
        ]
        said.append(f"[{turn['role']}]{''.join(pieces)}")
    return "".join(said)


class CompletionServer(LocalServer):
    """Answers, and remembers what it was asked."""

    def __init__(self, plan: Plan, scores: bool) -> None:
        super().__init__()
        self.plan = plan
        self.scores = scores
        self.bodies: list[Json] = []
        self.keys: list[str | None] = []
        self.times: Counter[str] = Counter()
        self.under_way = self.most_under_way = 0

    @property
    def url(self) -> str:
        return f"{super().url}/v1"

    def reply(self, method: str, path: str, headers: Mapping[str, str], body: str) -> Reply:
        with self.lock:
            self.times[body] += 1
            self.bodies.append(json.loads(body))
            self.keys.append(headers.get("Authorization"))
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            status = self.plan(self.times[body], path)
            if status is not None:
                return Reply(status, b"out of order")
            make = {"/v1/completions": self.complete, "/v1/chat/completions": self.chat}
            return Reply(body=json.dumps(make[path](json.loads(body))).encode())
        finally:
            with self.lock:
                self.under_way -= 1

    def complete(self, body: Json) -> Json:
        """Reply to /v1/completions."""
        prompt = body["prompt"]
        reply: Json = {"text": f" {len(tokens_of(prompt))} words Question:"}
        if body.get("echo"):
            tokens = tokens_of(prompt)
            offsets = [sum(map(len, tokens[:place])) for place in range(len(tokens))]
            values = [None, *(logprob_of(tokens, place) for place in range(1, len(tokens)))]
            reply["text"] = prompt + " more"
            if self.scores:
                reply["logprobs"] = {
                    "tokens": [*tokens, " more"],
                    "token_logprobs": [*values, -9.0],
                    "text_offset": [*offsets, len(prompt)],
                }
        return {"choices": [reply]}

    def chat(self, body: Json) -> Json:
        """Reply to /v1/chat/completions."""
        text = text_of(body["messages"])
        answer = f"{len(tokens_of(text))} words\nand more"
        reply: Json = {"choices": [{"message": {"role": "assistant", "content": answer}}]}
        if self.scores and body.get("prompt_logprobs") == 0:
            assert body["continue_final_message"] and not body["add_generation_prompt"]
            tokens = tokens_of(text)
            reply["prompt_logprobs"] = [
                None,
                *(
                    {str(place): {"logprob": logprob_of(tokens, place), "decoded_token": token}}
                    for place, token in list(enumerate(tokens))[1:]
                ),
            ]
        return reply


def serving(
    plan: Plan = lambda times, path: None, scores: bool = True
) -> AbstractContextManager[CompletionServer]:
    """Serve in a thread until the block ends."""
    return running(CompletionServer(plan, scores))
