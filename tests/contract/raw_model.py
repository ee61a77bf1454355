"""A model in a thread of its own, for runs that have the event loop to themselves."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from steering import MODELS, REPLY

DENIAL = b'{"error": {"message": "no such key"}}'


class DenyingModel(ThreadingHTTPServer):
    """Answers so many calls, then refuses the key for as long as it `denies`."""

    daemon_threads = True

    def __init__(self, after: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.left = after
        self.denies = True
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: DenyingModel

    def do_GET(self) -> None:
        self._say(200, MODELS)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.left -= 1
            refuses = self.server.denies and self.server.left < 0
        self._say(*((401, DENIAL) if refuses else (200, REPLY)))

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def denying(*, after: int) -> Iterator[DenyingModel]:
    """A `DenyingModel` that listens inside the block."""
    model = DenyingModel(after)
    thread = threading.Thread(target=model.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield model
    finally:
        model.shutdown()
        thread.join()
        model.server_close()
