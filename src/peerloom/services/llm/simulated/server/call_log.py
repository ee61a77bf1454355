"""The simulated server's own record of the calls it served: one JSON line each, written before the reply.

What comes up in one pass of the event loop is written together, then its replies go out, so the order
costs little at many calls a second. A SIGKILL of the server therefore loses no call that a client saw
answered. A kill between the write and the send leaves lines of status 200 whose replies nobody got: those
of the last pass, and whoever counts must allow for them. It may tear the last line; the server that is
started on the same file next goes on below it.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import orjson

from peerloom.errors import ServiceError


class Call(NamedTuple):
    """One call. `t` and `received` are Unix seconds: when the reply was due, when the request was here.

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
    """Appends to the file at `path`, once in each pass of the running event loop that has calls to note.

    Raises:
        ServiceError: if the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ServiceError(f"cannot write the log of calls to {path}: {error.strerror}") from error
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Call] = []
        self._actions: list[Callable[[], None]] = []
        self._begin = b"\n" if _is_torn(self._file) else b""

    def add(self, call: Call, then: Callable[[], None] | None = None) -> None:
        """Note one call, and do `then` once its line is written."""
        if not self._waiting:
            self._loop.call_soon(self.flush)
        self._waiting.append(call)
        if then is not None:
            self._actions.append(then)

    def flush(self) -> None:
        """Write what is waiting, and do what waits for it."""
        calls, self._waiting = self._waiting, []
        actions, self._actions = self._actions, []
        lines = b"".join(orjson.dumps(call._asdict(), option=orjson.OPT_APPEND_NEWLINE) for call in calls)
        view = memoryview(self._begin + lines if calls else b"")
        self._begin = b"" if calls else self._begin
        while view:
            view = view[os.write(self._file, view) :]
        for action in actions:
            action()

    def close(self) -> None:
        """Write what is waiting, and close the file."""
        try:
            self.flush()
        finally:
            os.close(self._file)


def _is_torn(file: int) -> bool:
    """Whether the last line of `file` lacks its end."""
    size = os.fstat(file).st_size
    return size > 0 and os.pread(file, 1, size - 1) != b"\n"
