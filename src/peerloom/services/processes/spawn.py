"""Start the processes a service needs, and end them when the process that started them ends.

A service passes a command to a `Spawner`, which is bound to one machine and can return spawners for the
others. `LocalSpawner` starts children of this process. Each child runs under supervisors
(`services.processes.children`), which end the child and its descendants when the child or this process
ends, even by SIGKILL.
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

BASIC_VARIABLES = ("PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH")
"""The variables that isolated processes inherit, and those that begin with `LC_`."""

_MARK = "PEERLOOM_CHILD"
_KILL_SECONDS = 5.0  # after which a supervisor that does not respond is killed
_TAIL_BYTES = 65_536
_LOOPBACK = "127.0.0.1"


class PlaceLost(ServiceError):
    """The machine of a spawner, or its helper process there, is lost: call `spread` again."""


class ChildProcess(Protocol):
    """A process started by a `Spawner`."""

    @property
    def pid(self) -> int:
        """The process id, on the machine it runs on."""
        ...

    @property
    def log(self) -> str:
        """The location of its output, for messages."""
        ...

    async def wait(self) -> int:
        """Wait until the process and its descendants have ended.

        Returns:
            The exit code, or minus the number of the signal that ended the process.
        """
        ...

    async def stop(self, grace: float = 5) -> None:
        """End the process and its descendants: SIGTERM, and SIGKILL after `grace` seconds.

        Does nothing if the process has ended.
        """
        ...

    async def output(self) -> str:
        """Return the output so far in whole lines; only the end of a long output."""
        ...

    async def cpu_seconds(self) -> float:
        """Return the CPU time used; 0 if the process has ended."""
        ...


class Spawner(Protocol):
    """Start processes, on this machine or another one."""

    @property
    def place(self) -> str:
        """The name of the machine; empty for this one."""
        ...

    async def spread(self, count: int) -> "Sequence[Spawner]":
        """Return `count` spawners, distributed over the available machines in turn.

        Raises:
            ServiceError: if the machines cannot be reached.
        """
        ...

    async def reserve_port(self, host: str | None = None) -> tuple[str, int]:
        """Reserve a free port, and return its address.

        The port is bound by a socket that does not listen, so that only a server that sets SO_REUSEPORT can
        use it.

        Args:
            host: an address of the machine; by default the one under which others reach it.

        Raises:
            PlaceLost: if the machine is gone.
            ServiceError: if `host` is not an address of that machine.
        """
        ...

    async def release_port(self, port: int) -> None:
        """Release a reserved port for any program. May be called twice."""
        ...

    async def close(self) -> None:
        """Release the spawner's own resources; processes it has started end with it."""
        ...

    async def start(
        self,
        argv: Sequence[str],
        *,
        name: str,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
        isolated: bool = False,
    ) -> ChildProcess:
        """Start a process that ends when this one does.

        Args:
            argv: program and arguments. All users of the machine can read them: no secrets.
            name: the process's name in messages.
            env: variables added to this process's environment.
            log: the file its output is appended to; None discards it.
            isolated: whether it gets `env` and the variables every program needs (`BASIC_VARIABLES`) instead
                of this process's environment, which may hold secrets.

        Raises:
            PlaceLost: if the machine is gone.
            ServiceError: if there is no such program, or the log cannot be written.
        """
        ...


class LocalSpawner:
    """Start children of this process, each in its own session so that Ctrl-C does not reach them."""

    place = ""

    def __init__(self) -> None:
        self._reserved: dict[int, socket.socket] = {}

    async def spread(self, count: int) -> "Sequence[Spawner]":
        """Return this spawner `count` times, since there is no other machine."""
        return [self] * count

    async def reserve_port(self, host: str | None = None) -> tuple[str, int]:
        """Reserve a port as in `Spawner`, by default on loopback."""
        host = host or _LOOPBACK
        loop = asyncio.get_running_loop()
        bound = None
        try:
            family, kind, proto, _, address = (await loop.getaddrinfo(host, 0, type=socket.SOCK_STREAM))[0]
            bound = socket.socket(family, kind, proto)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound.bind(address)
        except OSError as error:
            if bound is not None:
                bound.close()
            raise ServiceError(
                f"cannot listen on {host} ({error.strerror}): llm.host must be an address of the machine "
                "that the server runs on"
            ) from error
        name: tuple[str, int] = bound.getsockname()[:2]
        self._reserved[name[1]] = bound
        return name

    async def release_port(self, port: int) -> None:
        """Release a port as in `Spawner`."""
        if (bound := self._reserved.pop(port, None)) is not None:
            bound.close()

    async def close(self) -> None:
        """Do nothing: there is nothing to release."""

    async def start(
        self,
        argv: Sequence[str],
        *,
        name: str,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
        isolated: bool = False,
    ) -> ChildProcess:
        """Start a process as in `Spawner`."""
        mark = secrets.token_hex(16)
        inherited = _basic_environment() if isolated else os.environ
        environ = {**inherited, **(env or {}), _MARK: mark}
        program = shutil.which(argv[0], path=environ.get("PATH"))
        if program is None:
            raise ServiceError(f"{name}: cannot start {argv[0]!r}: no such program")
        control, supervisor_end = socket.socketpair()
        with contextlib.ExitStack() as on_failure:
            on_failure.enter_context(control)  # closing it ends every process started so far
            with supervisor_end, _open_log(name, log) as output:
                log_start = output.seek(0, os.SEEK_END)
                process = await asyncio.create_subprocess_exec(
                    *supervised([program, *argv[1:]], supervisor_end),
                    env=environ,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    pass_fds=[supervisor_end.fileno()],
                )
            control.setblocking(False)
            pid = await asyncio.get_running_loop().sock_recv(control, 32)
            on_failure.pop_all()
        return _LocalChild(process, int(pid or process.pid), control, mark, log, log_start)


def _basic_environment() -> dict[str, str]:
    return {
        name: value for name, value in os.environ.items() if name in BASIC_VARIABLES or name.startswith("LC_")
    }


def supervised(command: Sequence[str], control: socket.socket) -> list[str]:
    """Return a command that runs `command` under the supervisors of `services.processes.children`.

    Args:
        command: the path of a program, and its arguments.
        control: the socket that the supervisors inherit; closing its peer ends all of them.
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
            await end_marked(_MARK, self._mark)  # processes left behind if the supervisor was killed
            self._control.close()
            self._ended = True
        return code

    async def stop(self, grace: float = 5) -> None:
        if self._ended:
            return
        for command, seconds in ((b"T", grace), (b"K", _KILL_SECONDS)):
            with contextlib.suppress(OSError):  # the supervisor has ended
                self._control.send(command)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.wait()
                    return
        with contextlib.suppress(ProcessLookupError):
            self._supervisor.kill()  # it is suspended or stuck
        await self.wait()

    async def output(self) -> str:
        text = tail(self._log, self._log_start) if self._log is not None else ""
        return text[: text.rfind("\n") + 1]

    async def cpu_seconds(self) -> float:
        try:
            times = psutil.Process(self.pid).cpu_times()
        except psutil.Error:  # it has just ended
            return 0.0
        return times.user + times.system


def _open_log(name: str, log: Path | None) -> IO[bytes]:
    path = log or Path(os.devnull)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except OSError as error:
        raise ServiceError(f"{name}: cannot write its log {path}: {error.strerror}") from error


def tail(log: Path, start: int = 0) -> str:
    """Return the end of a log, from byte `start` or later; empty if the log cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
