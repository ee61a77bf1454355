"""Starts the processes a service needs, so that none of them outlives the process that asked for it.

A service says what to run and never how: it is handed a `Spawner`. `LocalSpawner` starts children of
this process. Each goes through a launcher (`peerloom.services.children`) that asks the kernel to kill
it when its parent dies, even by SIGKILL, before it becomes the program.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

from peerloom.errors import ServiceError
from peerloom.services import children


class ChildProcess(Protocol):
    """A process that was started."""

    @property
    def pid(self) -> int:
        """Its process id, on the machine it runs on."""
        ...

    async def wait(self) -> int:
        """Wait for its end; the exit code, or minus the number of the signal that ended it."""
        ...

    async def stop(self, grace: float = 5) -> None:
        """End it: SIGTERM, and SIGKILL after `grace` seconds. Does nothing if it has ended."""
        ...


class Spawner(Protocol):
    """Starts processes, here or on other machines."""

    async def start(
        self,
        argv: Sequence[str],
        *,
        name: str,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> ChildProcess:
        """Start a process that dies when this one does.

        Args:
            argv: program and arguments. Everybody on the machine can read them: no secrets.
            name: what to call it in messages.
            env: added to this process's environment.
            log: where its output is appended; None throws it away.

        Raises:
            ServiceError: if there is no such program, or the log cannot be written.
        """
        ...


class LocalSpawner:
    """Starts children of this process, each in a session of its own: a Ctrl-C does not reach them.

    The kernel counts as parent the *thread* that started the child, so call it from the thread that
    lives longest, normally the main thread's event loop.
    """

    async def start(
        self,
        argv: Sequence[str],
        *,
        name: str,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> ChildProcess:
        """See `Spawner`."""
        environ = {**os.environ, **(env or {})}
        program = shutil.which(argv[0], path=environ.get("PATH"))
        if program is None:
            raise ServiceError(f"{name}: cannot start {argv[0]!r}: no such program")
        launcher = [sys.executable, "-I", "-S", children.__file__, str(os.getpid()), program, *argv[1:]]
        with _opened(name, log) as output:
            process = await asyncio.create_subprocess_exec(
                *launcher,
                env=environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return _LocalChild(process)


class _LocalChild:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        return await self._process.wait()

    async def stop(self, grace: float = 5) -> None:
        if self._process.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._process.wait()
        self._signal(signal.SIGKILL)  # whatever is left of it, or of the processes it started
        await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def _opened(name: str, log: Path | None) -> IO[bytes]:
    path = log or Path(os.devnull)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except OSError as error:
        raise ServiceError(f"{name}: cannot write its log {path}: {error.strerror}") from error
