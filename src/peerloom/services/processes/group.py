"""The replicas of one model that one process has started and keeps alive.

One that is given up is tried again a minute later, for as long as any other of them has hope; when none
has, the group has died.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from peerloom.errors import ServiceError
from peerloom.services.processes.replica import Replica, Tell, first, start_all, stop_all
from peerloom.services.processes.server import Command
from peerloom.services.processes.spawn import Spawner

AGAIN_SECONDS = 60.0
"""After which a replica that was given up is tried again."""


class Group:
    """Replicas by one command.

    Args:
        command: how each is run.
        count: how many.
        everywhere: spread them over the machines there are, instead of this one.
        host: the address they listen on; None is the machine's own.
    """

    def __init__(
        self, command: Command, count: int, *, everywhere: bool = False, host: str | None = None
    ) -> None:
        self._command = command
        self._count = count
        self._everywhere = everywhere
        self._host = host
        self._tell: Tell = print
        self.replicas: list[Replica] = []

    @property
    def urls(self) -> tuple[str, ...]:
        """Base URLs of the replicas that are up; of all, while none is: one will be back there."""
        up = tuple(replica.url for replica in self.replicas if replica.state == "up")
        return up or tuple(replica.url for replica in self.replicas)

    async def start(self, spawner: Spawner, tell: Tell, log_dir: Path) -> None:
        """Start all side by side, and wait until they are well.

        Raises:
            ServiceError: if one does not come up; with its last words. None is left then.
        """
        self._tell = tell
        places = await spawner.spread(self._count) if self._everywhere else [spawner] * self._count
        sharing = Counter(place.place for place in places)
        for number, place in enumerate(places, 1):
            only = self._count == 1
            file = f"{self._command.engine.replace('.', '')}{'' if only else f'-{number}'}.log"
            replica = Replica(
                "" if only else f"{number} ",
                self._command,
                spawner,
                place,
                sharing=sharing[place.place],
                host=self._host,
                log=log_dir / file,
            )
            self.replicas.append(replica)
        await start_all(self.replicas, tell)

    async def watch(self, changed: Callable[[], None]) -> None:
        """Keep all alive; for ever, if they were stopped.

        Args:
            changed: called whenever the state or URL of one has.

        Raises:
            ServiceError: when none of them can be brought back; with the last words of the last.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for replica in self.replicas:
                    group.create_task(self._keep(replica, changed))
        except* ServiceError as failed:
            raise first(failed) from None
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Stop all. May be called at any time, and twice."""
        await stop_all(self.replicas)

    async def _keep(self, replica: Replica, changed: Callable[[], None]) -> None:
        while True:
            try:
                return await replica.keep(changed, self._tell)
            except ServiceError as error:
                left = sum(other.state != "lost" for other in self.replicas)
                if not left:
                    raise
                self._tell(f"{error}\n{left} of {self._count} replicas are left; it is tried again later")
                await asyncio.sleep(AGAIN_SECONDS)
