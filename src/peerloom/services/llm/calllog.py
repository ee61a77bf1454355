"""The simulated server's own record of the calls it served: one JSON line each.

Lines gather in memory and are written ten times a second and at the end, so that keeping the log costs
the server little and a SIGTERM loses none of it.
"""

import asyncio
import os
from pathlib import Path
from typing import NamedTuple

import orjson

from peerloom.errors import ServiceError

FLUSH_SECONDS = 0.1


class Call(NamedTuple):
    """One call. `t` and `received` are Unix seconds: when the reply was sent, when the request was here.

    `key` is a hash of the request's body. `status` is 499 if the client left before its reply.
    """

    t: float
    received: float
    key: str
    session: str
    status: int
    prompt_tokens: int
    completion_tokens: int


class CallLog:
    """Appends to the file at `path`. Needs a running event loop.

    Raises:
        ServiceError: if the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ServiceError(f"cannot write the log of calls to {path}: {error.strerror}") from error
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Call] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, call: Call) -> None:
        """Note one call."""
        self._waiting.append(call)
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Write what is waiting."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        calls, self._waiting = self._waiting, []
        lines = b"".join(orjson.dumps(call._asdict(), option=orjson.OPT_APPEND_NEWLINE) for call in calls)
        view = memoryview(lines)
        while view:
            view = view[os.write(self._file, view) :]

    def close(self) -> None:
        """Write what is waiting, and close the file."""
        try:
            self.flush()
        finally:
            os.close(self._file)
