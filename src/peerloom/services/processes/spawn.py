"""Starts the processes a service needs, so that none of them outlives the process that asked for it.

A service says what to run and never how: it is handed a `Spawner`, which is bound to one machine and can
be spread over all there are. `LocalSpawner` starts children of this process. Each runs under supervisors
(`services.processes.children`), which end it and all that it has started when it ends, and when this
process does, even by SIGKILL.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

import psutil

from peerloom.errors import ServiceError
from peerloom.services.processes import children
from peerloom.services.processes.orphans import end_marked

_MARK = "PEERLOOM_CHILD"
_KILL_SECONDS = 5.0  # after which a supervisor that does not obey is killed
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
        """Wait until it and all that it has started have ended.

        Returns:
            Its exit code, or minus the number of the signal that ended it.
        """
        ...

    async def stop(self, grace: float = 5) -> None:
        """End it and all that it has started: SIGTERM, and SIGKILL after `grace` seconds.

        Does nothing if it has ended.
        """
        ...

    async def output(self) -> str:
        """What it has written to its log so far, the end of it if that is long, in whole lines."""
        ...

    async def cpu_seconds(self) -> float:
        """CPU time it has used; 0 if it has ended."""
        ...


class ReservedPort(Protocol):
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

    async def hold(self, host: str | None = None) -> ReservedPort:
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
    """Starts children of this process, each in a session of its own: a Ctrl-C does not reach them."""

    place = ""

    async def spread(self, count: int) -> "Sequence[LocalSpawner]":
        """There is no other machine."""
        return [self] * count

    async def hold(self, host: str | None = None) -> "LocalPort":
        """See `Spawner`; loopback, if no address is given."""
        return await LocalPort.on(host or _LOOPBACK)

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
        mark = secrets.token_hex(16)
        environ = {**os.environ, **(env or {}), _MARK: mark}
        program = shutil.which(argv[0], path=environ.get("PATH"))
        if program is None:
            raise ServiceError(f"{name}: cannot start {argv[0]!r}: no such program")
        control, theirs = socket.socketpair()
        with contextlib.ExitStack() as on_failure:
            on_failure.enter_context(control)  # closing it ends all that may have started
            with theirs, _opened(name, log) as output:
                log_start = output.seek(0, os.SEEK_END)
                process = await asyncio.create_subprocess_exec(
                    *supervised([program, *argv[1:]], theirs),
                    env=environ,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    pass_fds=[theirs.fileno()],
                )
            control.setblocking(False)
            told = await asyncio.get_running_loop().sock_recv(control, 32)
            on_failure.pop_all()
        return _LocalChild(process, int(told or process.pid), control, mark, log, log_start)


class LocalPort:
    """A port of this machine."""

    def __init__(self, held: socket.socket) -> None:
        self._held = held
        self.host, self.port = held.getsockname()[:2]

    @classmethod
    async def on(cls, host: str) -> "LocalPort":
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
        """See `ReservedPort`."""
        self._held.close()


def supervised(command: Sequence[str], control: socket.socket) -> list[str]:
    """The command that runs another one under supervisors; see `services.children`.

    Args:
        command: the path of a program, and its arguments.
        control: a socket that the process is to inherit; when its peer is closed, all is ended.
    """
    return [sys.executable, "-I", "-S", children.__file__, str(control.fileno()), *command]


class _LocalChild:
    def __init__(
        self,
        supervisor: asyncio.subprocess.Process,
        pid: int,
        control: socket.socket,
        mark: str,
        log: Path | None,
        log_start: int,
    ) -> None:
        self._supervisor = supervisor
        self._control = control
        self._mark = mark
        self._log = log
        self._log_start = log_start
        self._ended = False
        self.pid = pid

    @property
    def log(self) -> str:
        return str(self._log)

    async def wait(self) -> int:
        code = await self._supervisor.wait()
        if not self._ended:
            await end_marked(_MARK, self._mark)  # what is left if the supervisor was killed
            self._control.close()
            self._ended = True
        return code

    async def stop(self, grace: float = 5) -> None:
        if self._ended:
            return
        for order, seconds in ((b"T", grace), (b"K", _KILL_SECONDS)):
            self._order(order)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.wait()
                    return
        with contextlib.suppress(ProcessLookupError):
            self._supervisor.kill()  # it is stopped, or stuck
        await self.wait()

    async def output(self) -> str:
        return _tail(self._log, self._log_start) if self._log is not None else ""

    async def cpu_seconds(self) -> float:
        try:
            times = psutil.Process(self.pid).cpu_times()
        except psutil.Error:  # it has just ended
            return 0.0
        return times.user + times.system

    def _order(self, order: bytes) -> None:
        with contextlib.suppress(OSError):  # the supervisor has ended
            self._control.send(order)


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
