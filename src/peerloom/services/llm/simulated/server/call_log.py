"""Log the calls served by the simulated server: one JSON line per call, written before the reply is sent.

The calls of one pass of the event loop are written together before their replies are sent, so a SIGKILL of
the server loses no call whose reply a client received, at little cost. A kill between writing and sending
leaves lines with status 200 for the unsent replies of the last pass, which readers must allow for. It may
also leave an incomplete last line; the next server with the same file continues on a new line.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import orjson

from peerloom.errors import ServiceError


class Call(NamedTuple):
    """One call. `t` and `received` are the Unix times at which the reply was due and the request arrived.

    `key` is a hash of the request's body. `status` is 499 if the client disconnected before its reply.
    """

    t: float
    received: float
    key: str
    session: str
    status: int
    prompt_tokens: int
    completion_tokens: int


class CallLog:
    """Appends calls to the file at `path`, once per pass of the running event loop.

    Raises:
        ServiceError: if the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ServiceError(f"cannot write the log of calls to {path}: {error.strerror}") from error
        self._loop = asyncio.get_running_loop()
        self._pending: list[Call] = []
        self._actions: list[Callable[[], None]] = []
        self._prefix = b"\n" if _is_torn(self._file) else b""

    def add(self, call: Call, then: Callable[[], None] | None = None) -> None:
        """Add one call, and call `then` once its line is written."""
        if not self._pending:
            self._loop.call_soon(self.flush)
        self._pending.append(call)
        if then is not None:
            self._actions.append(then)

    def flush(self) -> None:
        """Write the pending calls, and run their actions."""
        calls, self._pending = self._pending, []
        actions, self._actions = self._actions, []
        lines = b"".join(orjson.dumps(call._asdict(), option=orjson.OPT_APPEND_NEWLINE) for call in calls)
        view = memoryview(self._prefix + lines if calls else b"")
        self._prefix = b"" if calls else self._prefix
        while view:
            view = view[os.write(self._file, view) :]
        for action in actions:
            action()

    def close(self) -> None:
        """Write the pending calls, and close the file."""
        try:
            self.flush()
        finally:
            os.close(self._file)


def _is_torn(file: int) -> bool:
    """Return whether the last line of a file is incomplete."""
    size = os.fstat(file).st_size
    return size > 0 and os.pread(file, 1, size - 1) != b"\n"
