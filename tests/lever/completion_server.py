"""An OpenAI-compatible server on this machine: real HTTP, replies as vLLM lays them out.

Its model is a rule: the probability of a token falls with its length and place, so that a test can
work out every score by hand.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

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


class CompletionServer(ThreadingHTTPServer):
    """Answers, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self, plan: Plan, scores: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plan = plan
        self.scores = scores
        self.bodies: list[Json] = []
        self.keys: list[str | None] = []
        self.times: Counter[str] = Counter()
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

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


class _Handler(BaseHTTPRequestHandler):
    server: CompletionServer

    def do_POST(self) -> None:
        server = self.server
        raw = self.rfile.read(int(self.headers["content-length"])).decode()
        with server.lock:
            server.times[raw] += 1
            server.bodies.append(json.loads(raw))
            server.keys.append(self.headers.get("authorization"))
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
        try:
            status = server.plan(server.times[raw], self.path)
            make = {"/v1/completions": server.complete, "/v1/chat/completions": server.chat}
            content = b"out of order" if status else b""
            if status is None:
                content = json.dumps(make[self.path](json.loads(raw))).encode()
            self.send_response(status or 200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        finally:
            with server.lock:
                server.under_way -= 1

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output quiet."""


@contextmanager
def serving(
    plan: Plan = lambda times, path: None, scores: bool = True
) -> Iterator[CompletionServer]:
    """Serve in a thread until the block ends."""
    server = CompletionServer(plan, scores)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
