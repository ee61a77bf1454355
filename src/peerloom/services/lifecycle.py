"""Define how the driver starts, watches, and stops a service of any kind."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from peerloom.services.processes.spawn import Spawner

SpecT_co = TypeVar("SpecT_co", covariant=True)

Moved = Callable[[str, Sequence[str]], None]
"""Called with the name of a service and all its replicas (base URLs) whenever they have changed."""


class Lifecycle(Protocol[SpecT_co]):
    """A service, as seen from the driver. A subclass that starts nothing inherits `watch` and `stop`."""

    async def start(
        self, name: str, spawner: Spawner, notify: Callable[[str], None], log_dir: Path
    ) -> SpecT_co:
        """Start the processes needed. Return the description from which each peer makes a client.

        Args:
            name: the name of the service in the run.
            spawner: starts the processes.
            notify: called with a line to show to the user.
            log_dir: the directory for the logs of these processes.

        Raises:
            ServiceError: if the service cannot be started or reached; the message says what to do.
        """
        ...

    async def watch(self, moved: Moved) -> None:
        """Wait until the service fails, or forever.

        Args:
            moved: called when its replicas have changed.

        Raises:
            ServiceError: when the service has failed.
        """
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Stop all processes that were started. May be called at any time, and repeatedly."""
