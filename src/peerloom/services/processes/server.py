"""One life of a model's server: from its start, over its first sign of health, to its death or its silence.

A stopped process never ends by itself, so its `/health` is asked about now and then. Patience is counted
in looks, not by the clock: if this process was the one that was stopped, that is one look. An engine whose
HTTP threads starve under load (llama.cpp, with about a thousand connections) answers late though it is well,
so there a server that only used CPU time since the last look counts as alive as well.
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
_ASK_SECONDS = 5.0
_TAIL_LINES = 12
_LONGEST_LINE = 500
_CAUSE = re.compile(r"\b\w*(?:Error|Exception): \S")


class ServerAddress(NamedTuple):
    """Where one server is to be: its address, how many of its fleet share the machine, whether it is this."""

    host: str
    port: int
    sharing: int
    here: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How the servers of one fleet are run, and what a sign of life is. Times in seconds.

    Args:
        engine: its name, for messages and logs.
        what: what one of them is, for messages.
        argv: program and arguments for a seat; no secrets, everybody on the machine can read them.
        env: added to its environment; secrets may be here.
        keeps_port: whether it can listen on a port that we hold; if so its address outlives it.
        load: time it may take to load the model.
        look: between two looks, and how long the answer of one may take.
        looks: so many in a row without a sign of life, and it is killed.
        cpu_is_life: whether CPU time it has used is a sign of life.
    """

    engine: str
    what: str
    argv: Callable[[ServerAddress], list[str]]
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    keeps_port: bool = False
    load: float = 600.0
    look: float = 1.0
    looks: int = 5
    cpu_is_life: bool = False


class ServerProcess:
    """A server that was started at an address."""

    def __init__(self, child: ChildProcess, command: Command, seat: ServerAddress) -> None:
        self._child = child
        self._command = command
        self._health = f"{address(seat)}/health"
        self._well_since = 0.0
        self._last_sign = 0.0

    @classmethod
    async def start(
        cls, spawner: Spawner, command: Command, seat: ServerAddress, log: Path
    ) -> "ServerProcess":
        """Start it; it has still to load its model.

        Raises:
            ServiceError: if it cannot be started.
        """
        name = f"{command.engine} server"
        child = await spawner.start(command.argv(seat), name=name, env=command.env, log=log)
        return cls(child, command, seat)

    @property
    def pid(self) -> int:
        """Its process id, on the machine it runs on."""
        return self._child.pid

    @property
    def lived(self) -> float:
        """Seconds from when it was well, if it ever was, to its last sign of life."""
        return self._last_sign - self._well_since

    async def ready(self) -> None:
        """Wait until it has loaded the model, and says that it is well.

        Raises:
            ServiceError: if it ends, or takes too long; with its last words.
        """
        load, poll = self._command.load, _POLL_SECONDS
        try:
            async with asyncio.timeout(load), _session(_ASK_SECONDS) as session:
                while not await self._answers(session):
                    code = await self._ended_within(poll)
                    if code is not None:
                        raise ServiceError(await self._died(code))
                    poll = min(poll * 1.2, _SLOWEST_POLL_SECONDS)
        except TimeoutError as error:
            raise ServiceError(
                f"{self._command.what} did not load it in {load:g} s. {await self._last_words()}"
            ) from error
        self._well_since = self._last_sign = time.monotonic()

    async def end(self) -> str:
        """Wait until it has ended; how that was, with its last words. One that is stuck is killed."""
        look, looks = self._command.look, self._command.looks
        silent, used = 0, 0.0
        async with _session(look) as session:
            while silent < looks:
                code = await self._ended_within(look)
                if code is not None:
                    return await self._died(code)
                before = used
                if self._command.cpu_is_life:
                    used = await self._child.cpu_seconds()
                if used > before or await self._answers(session):
                    silent, self._last_sign = 0, time.monotonic()
                else:
                    silent += 1
        await self.stop(grace=0)
        what = self._command.what
        return f"{what} gave no sign of life in {looks} looks, so it was killed. {await self._last_words()}"

    async def stop(self, grace: float = 5) -> None:
        """End it: SIGTERM, and SIGKILL after `grace` seconds."""
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
        return f"{self._command.what} {how}. {await self._last_words()}"

    async def _last_words(self) -> str:
        return failure_in_log(self._child.log, await self._child.output())


def failure_in_log(log: str, text: str) -> str:
    """Describe a failure by a log: its last lines, and before them the first line that names an error.

    Engines log the cause first, then what became of it in each of their processes.
    """
    lines = [line[:_LONGEST_LINE] for line in text.splitlines() if line.strip()]
    if not lines:
        return f"Its log {log} is empty"
    tail = lines[-_TAIL_LINES:]
    cause = next((line for line in lines if _CAUSE.search(line) is not None), None)
    if cause is not None and cause not in tail:
        tail = [cause, "...", *tail]
    return f"Its log {log} ends with:" + "".join(f"\n  {line}" for line in tail)


def address(seat: ServerAddress) -> str:
    """The URL of a server, without a path."""
    host = f"[{seat.host}]" if ":" in seat.host else seat.host
    return f"http://{host}:{seat.port}"


def _session(seconds: float) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=seconds))
