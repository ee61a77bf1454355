"""Starts the processes a service needs, so that none of them outlives the process that asked for it.

A service says what to run and never how: it is handed a `Spawner`, which is bound to one machine and can
be spread over all there are. `LocalSpawner` starts children of this process. Each goes through a launcher
(`peerloom.services.children`) that asks the kernel to kill it when its parent dies, even by SIGKILL, before
it becomes the program.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

import psutil

from peerloom.errors import ServiceError
from peerloom.services import children

_OUTPUT_BYTES = 65_536
_LOOPBACK = "127.0.0.1"


class PlaceLost(ServiceError):
    """The machine a spawner is bound to, or the process it starts others from, is gone: spread again."""


class ChildProcess(Protocol):
    """A process that was started."""

    @property
    def pid(self) -> int:
        """Its process id, on the machine it runs on."""
        ...

    @property
    def log(self) -> str:
        """Where its output is, for messages."""
        ...

    async def wait(self) -> int:
        """Wait for its end; the exit code, or minus the number of the signal that ended it."""
        ...

    async def stop(self, grace: float = 5) -> None:
        """End it: SIGTERM, and SIGKILL after `grace` seconds. Does nothing if it has ended."""
        ...

    async def output(self) -> str:
        """What it has written to its log so far, the end of it if that is long, in whole lines."""
        ...

    async def cpu_seconds(self) -> float:
        """CPU time it has used; 0 if it has ended."""
        ...


class Held(Protocol):
    """A port that is ours: bound but not listening, so only a server that asks to share it can have it."""

    @property
    def host(self) -> str:
        """The address, as others reach it."""
        ...

    @property
    def port(self) -> int:
        """The port."""
        ...

    async def release(self) -> None:
        """Let anybody have it. May be called twice."""
        ...


class Spawner(Protocol):
    """Starts processes, here or on another machine."""

    @property
    def place(self) -> str:
        """Which machine; empty is this one."""
        ...

    async def spread(self, count: int) -> "Sequence[Spawner]":
        """Where to start so many processes: over the machines there are, in turn.

        Raises:
            ServiceError: if the machines cannot be reached.
        """
        ...

    async def hold(self, host: str | None = None) -> Held:
        """A free port there, of `host` or of the address that others reach the machine by.

        Raises:
            PlaceLost: if the machine is gone.
            ServiceError: if `host` is no address of that machine.
        """
        ...

    async def close(self) -> None:
        """Give back what the spawner itself needed; processes it has started end with it."""
        ...

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
            PlaceLost: if the machine is gone.
            ServiceError: if there is no such program, or the log cannot be written.
        """
        ...


class LocalSpawner:
    """Starts children of this process, each in a session of its own: a Ctrl-C does not reach them.

    The kernel counts as parent the *thread* that started the child, so call it from the thread that
    lives longest, normally the main thread's event loop.
    """

    place = ""

    async def spread(self, count: int) -> "Sequence[LocalSpawner]":
        """There is no other machine."""
        return [self] * count

    async def hold(self, host: str | None = None) -> "LocalHeld":
        """See `Spawner`; loopback, if no address is given."""
        return await LocalHeld.on(host or _LOOPBACK)

    async def close(self) -> None:
        """Nothing to give back."""

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
            log_start = output.seek(0, os.SEEK_END)
            process = await asyncio.create_subprocess_exec(
                *launcher,
                env=environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return _LocalChild(process, log, log_start)


class LocalHeld:
    """A port of this machine."""

    def __init__(self, held: socket.socket) -> None:
        self._held = held
        self.host, self.port = held.getsockname()[:2]

    @classmethod
    async def on(cls, host: str) -> "LocalHeld":
        """A free port of `host`.

        Raises:
            ServiceError: if that is no address of this machine.
        """
        loop = asyncio.get_running_loop()
        held = None
        try:
            family, kind, proto, _, address = (await loop.getaddrinfo(host, 0, type=socket.SOCK_STREAM))[0]
            held = socket.socket(family, kind, proto)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind(address)
        except OSError as error:
            if held is not None:
                held.close()
            raise ServiceError(
                f"cannot listen on {host} ({error.strerror}): llm.host must be an address of the machine "
                "that the server runs on"
            ) from error
        return cls(held)

    async def release(self) -> None:
        """See `Held`."""
        self._held.close()


class _LocalChild:
    def __init__(self, process: asyncio.subprocess.Process, log: Path | None, log_start: int) -> None:
        self._process = process
        self._log = log
        self._log_start = log_start

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return str(self._log)

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

    async def output(self) -> str:
        return _tail(self._log, self._log_start) if self._log is not None else ""

    async def cpu_seconds(self) -> float:
        try:
            times = psutil.Process(self._process.pid).cpu_times()
        except psutil.Error:  # it has just ended
            return 0.0
        return times.user + times.system

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


def _tail(log: Path, start: int) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(start, file.seek(0, os.SEEK_END) - _OUTPUT_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return text[: text.rfind("\n") + 1]
