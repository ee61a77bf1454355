"""Keep one replica alive: restart its server process whenever it has ended.

If the engine can share a port, the replica keeps its port reserved between restarts, so that no other
program takes it. Otherwise, and when its machine is lost, the next server gets another address. A server
that repeatedly ends soon after it has become healthy is restarted with increasing delays, and then given up.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from peerloom.errors import ServiceError
from peerloom.services.processes.server import Command, ServerAddress, ServerProcess, base_url
from peerloom.services.processes.spawn import PlaceLost, Spawner

SHORT_SECONDS = 5.0
SHORT_LIVES = 3
"""A replica is given up after this number of servers in a row that each lived less than `SHORT_SECONDS`."""
FIRST_WAIT_SECONDS = 0.25
"""The delay before a restart after one short-lived server; it doubles with each further one in a row."""
PLACE_SECONDS = 2.0
"""The interval between attempts to find a machine for a server that has lost its own."""

State = Literal["starting", "up", "restarting", "lost", "stopped"]
Notify = Callable[[str], None]


class Replica:
    """A server that is restarted whenever it has ended.

    Args:
        name: its number in messages; empty if it is the only replica.
        command: the server's command.
        spawner: the spawner that finds another machine if its own is lost.
        machine: the spawner of the machine it is started on.
        sharing: the number of replicas on that machine.
        host: the address it listens on; None for the machine's own.
        log: the file of its output.
    """

    def __init__(
        self,
        name: str,
        command: Command,
        spawner: Spawner,
        machine: Spawner,
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
        self._machine = machine
        self._sharing = sharing
        self._host = host
        self._log = log
        self._address: tuple[str, int] | None = None  # reserved, if the engine can share a port
        self._server: ServerProcess | None = None
        self._stopping = False

    @property
    def place(self) -> str:
        """The name of its machine; empty for this one."""
        return self._machine.place

    @property
    def pid(self) -> int | None:
        """The process id of its server on its machine; None if there is none."""
        return self._server.pid if self._server is not None and self.state == "up" else None

    async def start(self, notify: Notify) -> None:
        """Start its server, and wait until it is healthy.

        Args:
            notify: called with the reason for a wait.

        Raises:
            ServiceError: if it does not start; the text has the end of its log.
        """
        server = await self._launch(notify)
        await server.ready()
        self.state = "up"

    async def keep_alive(self, changed: Callable[[], None], notify: Notify) -> None:
        """Restart the server whenever it has died or got stuck, until `stop`.

        Args:
            changed: called whenever the state or URL has changed.
            notify: called with each end and restart of the server.

        Raises:
            ServiceError: after `SHORT_LIVES` short-lived servers in a row; the text has the end of the log.
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
                    "so it is not restarted"
                )
            self.state = "restarting"
            changed()
            if end:
                notify(f"{end}\nIt is being restarted")
            if short:
                await asyncio.sleep(FIRST_WAIT_SECONDS * 2 ** (short - 1))
            end = await self._restart(changed, notify)

    async def stop(self) -> None:
        """Stop the server. May be called at any time, and twice."""
        self._stopping = True
        self.state = "stopped"
        if self._server is not None:
            await self._server.stop()
        if self._address is not None:
            await self._machine.release_port(self._address[1])
        await self._leave()

    async def _restart(self, changed: Callable[[], None], notify: Notify) -> str:
        """Start a server, wait until it has ended, and describe how."""
        began = time.monotonic()
        self.restarts += 1
        try:
            server = await self._launch(notify)
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
            notify(
                f"the {self._command.engine} server {self.name}is back after {time.monotonic() - began:.1f} s"
            )
        return await server.end()

    async def _launch(self, notify: Notify) -> ServerProcess:
        """Start a server, on another machine if its own is lost."""
        while True:
            try:
                return await self._launch_here()
            except PlaceLost:
                await self._leave()
                self._address, self._machine = None, await self._find_machine(notify)

    async def _find_machine(self, notify: Notify) -> Spawner:
        """Wait until a lost machine comes back or another one is added."""
        problem = ""
        while True:
            try:
                [machine] = await self._spawner.spread(1)
                return machine
            except ServiceError as error:
                if str(error) != problem:
                    problem = str(error)
                    notify(f"the {self._command.engine} server {self.name}waits for a machine: {problem}")
                await asyncio.sleep(PLACE_SECONDS)

    async def _leave(self) -> None:
        if self._machine is not self._spawner:  # its owner closes that one
            await self._machine.close()

    async def _launch_here(self) -> ServerProcess:
        if self._address is None or not self._command.reuses_port:
            self._address = await self._machine.reserve_port(self._host)
        if not self._command.reuses_port:
            await self._machine.release_port(self._address[1])
        server_address = ServerAddress(*self._address, self._sharing, here=not self._machine.place)
        self.url = f"{base_url(server_address)}/v1"
        self._server = await ServerProcess.start(self._machine, self._command, server_address, self._log)
        return self._server
