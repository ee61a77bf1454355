"""Start the replicas of one model, and keep them alive.

A replica that was given up is started again after a minute, as long as another replica has not been given
up. When all have been given up, the group fails.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from peerloom.errors import ServiceError, first_error
from peerloom.services.processes.replica import Notify, Replica
from peerloom.services.processes.server import Command
from peerloom.services.processes.spawn import Spawner

RETRY_SECONDS = 60.0
"""The delay before a replica that was given up is started again."""


class Group:
    """Replicas started by the same command.

    Args:
        command: the server's command.
        count: the number of replicas.
        everywhere: distribute them over all machines, instead of starting them on this one.
        host: the address they listen on; None for the machine's own.
    """

    def __init__(
        self, command: Command, count: int, *, everywhere: bool = False, host: str | None = None
    ) -> None:
        self._command = command
        self._count = count
        self._everywhere = everywhere
        self._host = host
        self._notify: Notify = print
        self.replicas: list[Replica] = []

    @property
    def urls(self) -> tuple[str, ...]:
        """The base URLs of the replicas that are up; while none is, those of all replicas."""
        up = tuple(replica.url for replica in self.replicas if replica.state == "up")
        return up or tuple(replica.url for replica in self.replicas)

    async def start(self, spawner: Spawner, notify: Notify, log_dir: Path) -> None:
        """Start all replicas concurrently, and wait until they are healthy.

        Raises:
            ServiceError: if a replica does not start; the text has the end of its log. All are stopped then.
        """
        self._notify = notify
        machines = await spawner.spread(self._count) if self._everywhere else [spawner] * self._count
        sharing = Counter(machine.place for machine in machines)
        for number, machine in enumerate(machines, 1):
            only = self._count == 1
            file = f"{self._command.engine.replace('.', '')}{'' if only else f'-{number}'}.log"
            replica = Replica(
                "" if only else f"{number} ",
                self._command,
                spawner,
                machine,
                sharing=sharing[machine.place],
                host=self._host,
                log=log_dir / file,
            )
            self.replicas.append(replica)
        try:
            async with asyncio.TaskGroup() as group:
                for replica in self.replicas:
                    group.create_task(replica.start(notify))
        except* ServiceError as failed:
            raise first_error(failed) from None
        finally:
            if any(replica.state != "up" for replica in self.replicas):
                await self.stop()

    async def watch(self, changed: Callable[[], None]) -> None:
        """Keep all replicas alive. After `stop`, wait for ever.

        Args:
            changed: called whenever the state or URL of a replica has changed.

        Raises:
            ServiceError: when all replicas were given up; the text has the end of the last one's log.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for replica in self.replicas:
                    group.create_task(self._keep_alive(replica, changed))
        except* ServiceError as failed:
            raise first_error(failed) from None
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Stop all replicas. May be called at any time, and twice."""
        with suppress(ServiceError):
            await asyncio.gather(*(replica.stop() for replica in self.replicas))

    async def _keep_alive(self, replica: Replica, changed: Callable[[], None]) -> None:
        while True:
            try:
                return await replica.keep_alive(changed, self._notify)
            except ServiceError as error:
                left = sum(other.state != "lost" for other in self.replicas)
                if not left:
                    raise
                self._notify(f"{error}\n{left} of {self._count} replicas are left; it will be retried later")
                await asyncio.sleep(RETRY_SECONDS)
