"""A judge's endpoint on this machine: a real HTTP server that follows a script."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# How often this prompt came and the prompt -> status and body, or None to hang.
Script = Callable[[int, str], tuple[int, bytes] | None]


def reply(text: object) -> bytes:
    """Make the body of a reply that says `text`."""
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


class JudgeServer(ThreadingHTTPServer):
    """Answers as the script says and remembers what was asked."""

    daemon_threads = True

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.prompts: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.stop = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: JudgeServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = body["messages"][0]["content"]
        with self.server.lock:
            self.server.prompts.append(prompt)
            self.server.paths.append(self.path)
            self.server.headers.append(dict(self.headers))
            attempt = self.server.prompts.count(prompt)
        planned = self.server.script(attempt, prompt)
        if planned is None:
            self.server.stop.wait(20)
            return
        status, content = planned
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        if status == 429:
            self.send_header("retry-after", "0.01")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output quiet."""


@contextmanager
def serving(script: Script) -> Iterator[JudgeServer]:
    """Serve in a thread until the block ends."""
    server = JudgeServer(script)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.stop.set()
        server.shutdown()
        server.server_close()
