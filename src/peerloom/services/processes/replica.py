"""One replica: a server's process, started again whenever it has ended, for as long as there is hope.

Its address is held meanwhile if the engine can share it, so that no other program takes it; else, and when
its machine is lost, the next life has another. Servers that end as soon as they are well, several in a row,
are waited for longer and longer, and then given up.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from peerloom.errors import ServiceError
from peerloom.services.processes.server import Command, ServerAddress, ServerProcess, address
from peerloom.services.processes.spawn import PlaceLost, ReservedPort, Spawner

SHORT_SECONDS = 5.0
SHORT_LIVES = 3
"""So many servers in a row that each ended within `SHORT_SECONDS` of being well, and it is given up."""
FIRST_WAIT_SECONDS = 0.25
"""Before the next start after such a short life; it doubles with each in a row."""
PLACE_SECONDS = 2.0
"""Between two attempts to find a machine for a server that has lost its own."""

State = Literal["starting", "up", "restarting", "lost", "stopped"]
Tell = Callable[[str], None]


class Replica:
    """A server that is kept alive.

    Args:
        name: what distinguishes it, for messages; empty if it is the only one.
        command: how it is run.
        spawner: finds another machine if its own is lost.
        place: where it is started.
        sharing: how many replicas share that machine.
        host: the address it listens on; None is the machine's own.
        log: where its output goes.
    """

    def __init__(
        self,
        name: str,
        command: Command,
        spawner: Spawner,
        place: Spawner,
        *,
        sharing: int,
        host: str | None,
        log: Path,
    ) -> None:
        self.name = name
        self.state: State = "starting"
        self.url = ""
        self.restarts = 0
        self._command = command
        self._spawner = spawner
        self._place = place
        self._sharing = sharing
        self._host = host
        self._log = log
        self._held: ReservedPort | None = None
        self._server: ServerProcess | None = None
        self._stopping = False

    @property
    def place(self) -> str:
        """Its machine; empty is this one."""
        return self._place.place

    @property
    def pid(self) -> int | None:
        """The process id of its server, on its machine; None if there is none."""
        return self._server.pid if self._server is not None and self.state == "up" else None

    async def start(self, tell: Tell) -> None:
        """Start its server, and wait until that is well; `tell` hears what it waits for.

        Raises:
            ServiceError: if it does not come up; with its last words.
        """
        server = await self._launch(tell)
        await server.ready()
        self.state = "up"

    async def keep(self, changed: Callable[[], None], tell: Tell) -> None:
        """Start the server again whenever it has died or got stuck, until `stop`.

        Args:
            changed: called whenever state or URL have.
            tell: hears of deaths and returns.

        Raises:
            ServiceError: when it dies again and again as soon as it is started; with its last words.
        """
        short = 0
        end = await self._server.end() if self._server is not None and self.state == "up" else ""
        while not self._stopping:
            short = short + 1 if self._server is None or self._server.lived < SHORT_SECONDS else 0
            if short >= SHORT_LIVES:
                self.state = "lost"
                changed()
                raise ServiceError(
                    f"{end}\nIt ended within {SHORT_SECONDS:g} s {short} times in a row, "
                    "so it is not started again"
                )
            self.state = "restarting"
            changed()
            if end:
                tell(f"{end}\nIt is started again")
            if short:
                await asyncio.sleep(FIRST_WAIT_SECONDS * 2 ** (short - 1))
            end = await self._another(changed, tell)

    async def stop(self) -> None:
        """Stop the server. May be called at any time, and twice."""
        self._stopping = True
        self.state = "stopped"
        if self._server is not None:
            await self._server.stop()
        if self._held is not None:
            await self._held.release()
        await self._leave()

    async def _another(self, changed: Callable[[], None], tell: Tell) -> str:
        """Start a server and wait for its end; how that was."""
        began = time.monotonic()
        self.restarts += 1
        try:
            server = await self._launch(tell)
            if self._stopping:
                await server.stop()
            await server.ready()
        except ServiceError as error:
            if self._server is not None:
                await self._server.stop()
            return str(error)
        if not self._stopping:
            self.state = "up"
            changed()
            tell(
                f"the {self._command.engine} server {self.name}is back after {time.monotonic() - began:.1f} s"
            )
        return await server.end()

    async def _launch(self, tell: Tell) -> ServerProcess:
        """Start a server, on another machine if its own is lost."""
        while True:
            try:
                return await self._launch_here()
            except PlaceLost:
                await self._leave()
                self._held, self._place = None, await self._another_place(tell)

    async def _another_place(self, tell: Tell) -> Spawner:
        """Find a machine, however long that takes: lost ones come back, or others are added."""
        told = ""
        while True:
            try:
                [place] = await self._spawner.spread(1)
                return place
            except ServiceError as error:
                if str(error) != told:
                    told = str(error)
                    tell(f"the {self._command.engine} server {self.name}waits for a machine: {told}")
                await asyncio.sleep(PLACE_SECONDS)

    async def _leave(self) -> None:
        """Give the place back, unless it is the spawner that we were handed."""
        if self._place is not self._spawner:
            await self._place.close()

    async def _launch_here(self) -> ServerProcess:
        if self._held is None or not self._command.keeps_port:
            self._held = await self._place.hold(self._host)
        if not self._command.keeps_port:
            await self._held.release()
        seat = ServerAddress(self._held.host, self._held.port, self._sharing, here=not self._place.place)
        self.url = f"{address(seat)}/v1"
        self._server = await ServerProcess.start(self._place, self._command, seat, self._log)
        return self._server


async def start_all(replicas: Sequence[Replica], tell: Tell) -> None:
    """Start replicas side by side; if one does not come up, none is left.

    Raises:
        ServiceError: the first failure.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for replica in replicas:
                group.create_task(replica.start(tell))
    except* ServiceError as failed:
        raise first(failed) from None
    finally:
        if any(replica.state != "up" for replica in replicas):
            await stop_all(replicas)


async def stop_all(replicas: Sequence[Replica]) -> None:
    """Stop replicas side by side."""
    with suppress(ServiceError):
        await asyncio.gather(*(replica.stop() for replica in replicas))


def first(group: BaseExceptionGroup[ServiceError]) -> ServiceError:
    """The first error of a group."""
    error = group.exceptions[0]
    return first(error) if isinstance(error, BaseExceptionGroup) else error
