"""Log the calls served by the simulated server: one JSON line per call, written before the reply is sent.

So a SIGKILL of the server loses no call whose reply a client received. A kill between writing and sending
leaves a line with status 200 for the unsent reply, which readers must allow for. It may also leave an
incomplete last line; the next server with the same file continues on a new line.
"""

import os
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
    """Appends calls to the file at `path`.

    Raises:
        ServiceError: if the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ServiceError(f"cannot write the log of calls to {path}: {error.strerror}") from error
        self._prefix = b"\n" if _is_torn(self._file) else b""

    def add(self, call: Call) -> None:
        """Write the line of a call."""
        line = self._prefix + orjson.dumps(call._asdict(), option=orjson.OPT_APPEND_NEWLINE)
        self._prefix = b""
        while line:
            line = line[os.write(self._file, line) :]

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _is_torn(file: int) -> bool:
    """Return whether the last line of a file is incomplete."""
    size = os.fstat(file).st_size
    return size > 0 and os.pread(file, 1, size - 1) != b"\n"
