"""Run one server process of a model, and check its health until it ends or stops responding.

A suspended process never ends by itself, so `/health` is polled. A timeout is counted in failed checks, not
by the clock: if this process itself was suspended, that counts as one check. An engine whose HTTP threads
starve under load (llama.cpp, with about a thousand connections) answers late although it works; there, CPU
time used since the last check also counts as a sign of life.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import aiohttp

from peerloom.errors import ServiceError
from peerloom.services.processes.spawn import ChildProcess, Spawner

_POLL_SECONDS = 0.05
_SLOWEST_POLL_SECONDS = 1.0
_HEALTH_SECONDS = 5.0
_TAIL_LINES = 12
_LONGEST_LINE = 500
_CAUSE = re.compile(r"\b\w*(?:Error|Exception): \S")


class ServerAddress(NamedTuple):
    """The address of a server.

    Args:
        host: the address it listens on.
        port: the port it listens on.
        sharing: the number of replicas on its machine.
        here: whether it runs on this machine.
    """

    host: str
    port: int
    sharing: int
    here: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """The command of a model's servers, and their health checks. Times in seconds.

    Args:
        engine: the engine's name in messages and logs.
        description: the description of a server in messages.
        argv: the function that returns program and arguments for an address; no secrets, since all users
            of the machine can read them.
        env: variables added to its environment; secrets may be here.
        isolated: whether its environment is `env`, without the driver's (see `Spawner.start`).
        reuses_port: whether it can listen on a reserved port, so that its address stays after a restart.
        load_seconds: the limit for loading the model.
        check_seconds: the interval between two health checks, and the timeout of one.
        max_failed_checks: the number of failed checks in a row after which the server is killed.
        cpu_time_counts: whether CPU time it has used is a sign of life.
    """

    engine: str
    description: str
    argv: Callable[[ServerAddress], list[str]]
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    isolated: bool = False
    reuses_port: bool = False
    load_seconds: float = 600.0
    check_seconds: float = 1.0
    max_failed_checks: int = 5
    cpu_time_counts: bool = False


class ServerProcess:
    """A server started at an address."""

    def __init__(self, child: ChildProcess, command: Command, address: ServerAddress) -> None:
        self._child = child
        self._command = command
        self._health = f"{base_url(address)}/health"
        self._healthy_since = 0.0
        self._last_sign = 0.0

    @classmethod
    async def start(
        cls, spawner: Spawner, command: Command, address: ServerAddress, log: Path
    ) -> "ServerProcess":
        """Start a server, without waiting for it to load its model.

        Raises:
            ServiceError: if it cannot be started.
        """
        name = f"{command.engine} server"
        child = await spawner.start(
            command.argv(address), name=name, env=command.env, log=log, isolated=command.isolated
        )
        return cls(child, command, address)

    @property
    def pid(self) -> int:
        """The process id, on the machine it runs on."""
        return self._child.pid

    @property
    def lived(self) -> float:
        """The seconds from the first successful health check, if any, to the last sign of life."""
        return self._last_sign - self._healthy_since

    async def ready(self) -> None:
        """Wait until the server has loaded the model and its health check succeeds.

        Raises:
            ServiceError: if it ends, or takes too long; the text has the end of its log.
        """
        limit, poll = self._command.load_seconds, _POLL_SECONDS
        try:
            async with asyncio.timeout(limit), _session(_HEALTH_SECONDS) as session:
                while not await self._answers(session):
                    code = await self._ended_within(poll)
                    if code is not None:
                        raise ServiceError(await self._died(code))
                    poll = min(poll * 1.2, _SLOWEST_POLL_SECONDS)
        except TimeoutError as error:
            why = f"{self._command.description} did not load the model in {limit:g} s"
            raise ServiceError(f"{why}. {await self._failure_in_log()}") from error
        self._healthy_since = self._last_sign = time.monotonic()

    async def end(self) -> str:
        """Wait until the server has ended, killing it if it is stuck, and describe how it ended."""
        interval, checks = self._command.check_seconds, self._command.max_failed_checks
        failed, used = 0, 0.0
        async with _session(interval) as session:
            while failed < checks:
                code = await self._ended_within(interval)
                if code is not None:
                    return await self._died(code)
                before = used
                if self._command.cpu_time_counts:
                    used = await self._child.cpu_seconds()
                if used > before or await self._answers(session):
                    failed, self._last_sign = 0, time.monotonic()
                else:
                    failed += 1
        await self.stop(grace=0)
        return (
            f"{self._command.description} did not respond to {checks} health checks and was killed. "
            f"{await self._failure_in_log()}"
        )

    async def stop(self, grace: float = 5) -> None:
        """End the server: SIGTERM, and SIGKILL after `grace` seconds."""
        await self._child.stop(grace)

    async def _ended_within(self, seconds: float) -> int | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._child.wait()
        return None

    async def _answers(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(self._health) as response:
                return response.status == 200
        except (TimeoutError, aiohttp.ClientError, OSError):
            return False

    async def _died(self, code: int) -> str:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"{self._command.description} {how}. {await self._failure_in_log()}"

    async def _failure_in_log(self) -> str:
        return failure_in_log(self._child.log, await self._child.output())


def failure_in_log(log: str, text: str) -> str:
    """Describe a failure by the last lines of a log, preceded by the first line that names an error.

    Engines log the cause first, then its consequences in each of their processes.
    """
    lines = [line[:_LONGEST_LINE] for line in text.splitlines() if line.strip()]
    if not lines:
        return f"Its log {log} is empty"
    tail = lines[-_TAIL_LINES:]
    cause = next((line for line in lines if _CAUSE.search(line) is not None), None)
    if cause is not None and cause not in tail:
        tail = [cause, "...", *tail]
    return f"Its log {log} ends with:" + "".join(f"\n  {line}" for line in tail)


def base_url(address: ServerAddress) -> str:
    """Return the URL of a server, without a path."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"http://{host}:{address.port}"


def _session(seconds: float) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=seconds))
