"""A server on this machine, for tests of what speaks HTTP: real sockets, replies by a rule."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar


@dataclass(frozen=True)
class Reply:
    """What a request is answered with."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class LocalServer(ThreadingHTTPServer):
    """Answers every request by `reply`; each in a thread of its own."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self._stop = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def reply(self, method: str, path: str, headers: Mapping[str, str], body: str) -> Reply | None:
        """Answer one request; None leaves it hanging."""
        raise AssertionError(f"{method} {path}")


class _Handler(BaseHTTPRequestHandler):
    server: LocalServer

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        made = self.server.reply(self.command, self.path, dict(self.headers), body)
        if made is None:
            self.server._stop.wait(20)
            return
        self.send_response(made.status)
        for name, value in {**made.headers, "content-length": str(len(made.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(made.body)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output quiet."""


S = TypeVar("S", bound=LocalServer)


@contextmanager
def running(server: S) -> Iterator[S]:
    """Serve in a thread until the block ends."""
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server._stop.set()
        server.shutdown()
        server.server_close()
