"""A judge's endpoint on this machine: a real HTTP server that follows a script."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from tests.local_server import LocalServer, Reply, running

# How often this prompt came and the prompt -> status and body, or None to hang.
Script = Callable[[int, str], tuple[int, bytes] | None]


def reply(text: object) -> bytes:
    """Make the body of a reply that says `text`."""
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


class JudgeServer(LocalServer):
    """Answers as the script says and remembers what was asked."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        self.script = script
        self.prompts: list[str] = []
        self.headers: list[Mapping[str, str]] = []
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"{super().url}/v1"

    def reply(self, method: str, path: str, headers: Mapping[str, str], body: str) -> Reply | None:
        prompt = json.loads(body)["messages"][0]["content"]
        with self.lock:
            self.prompts.append(prompt)
            self.paths.append(path)
            self.headers.append(headers)
            attempt = self.prompts.count(prompt)
        planned = self.script(attempt, prompt)
        if planned is None:
            return None
        status, content = planned
        return Reply(status, content, {"retry-after": "0.01"} if status == 429 else {})


def serving(script: Script) -> AbstractContextManager[JudgeServer]:
    """Serve in a thread until the block ends."""
    return running(JudgeServer(script))
