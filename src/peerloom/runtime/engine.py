"""Define the interface of engines, which start members, reach them, and detect their death."""

from collections.abc import Callable
from typing import Protocol

from peerloom.errors import EngineError, UsageError
from peerloom.protocol.view import FEEDER, SINK
from peerloom.runtime.member.feeder import open_feeder
from peerloom.runtime.member.peer import open_peer
from peerloom.runtime.member.runtime import MemberRuntime
from peerloom.runtime.member.sink import open_sink
from peerloom.runtime.member.spec import MemberSpec
from peerloom.runtime.transport.base import Link, NoRoom, Unreachable
from peerloom.services.processes.spawn import Spawner
from peerloom.sink.errors import DiskFull, SinkError


class Engine(Protocol):
    """Runs members, addressed by name. Methods that reach a member raise `Unreachable` if it is gone."""

    @property
    def step(self) -> str:
        """A description of `start` for the user; empty if it takes no time."""
        ...

    async def start(self) -> None:
        """Prepare to start members.

        Raises:
            EngineError: if the engine cannot run here.
        """
        ...

    def spawner(self) -> Spawner:
        """Return the spawner for the processes of services; usable before `start`."""
        ...

    def address(self) -> str:
        """Return the address of this process for other hosts, once started; 127.0.0.1 without any."""
        ...

    async def spawn(self, spec: MemberSpec, on_wait: Callable[[str], None]) -> tuple[str, int]:
        """Start a member, wait until it accepts messages, and return its node and process id.

        While the cluster lacks resources for its process, the wait continues, and `on_wait` is called with
        a description of the missing resources.

        Raises:
            NoRoom: if the disk has no room at present for the files it needs to start.
            Unreachable: if its process dies before it is ready.
            EngineError: if it cannot start, and a retry would not help.
        """
        ...

    def names(self) -> list[str]:
        """Return the names of the present members."""
        ...

    async def introduce(self, name: str) -> None:
        """Tell a member how to reach all other members."""
        ...

    async def notify(self, name: str, data: bytes) -> None:
        """Send a member an encoded message from the driver."""
        ...

    async def poll_events(self, name: str, received: int) -> list[bytes]:
        """Wait for a member's encoded events after the first `received` ones, and return them.

        The list is empty once the member has stopped as requested.

        Raises:
            Unreachable: if it dies for a reason that a replacement may not meet.
            EngineError: if it ended for a reason that would end its replacement too.
        """
        ...

    async def ping(self, name: str) -> None:
        """Wait for a heartbeat.

        It is no event, since those of a busy member may be late: only a process that does not run misses it.
        """
        ...

    async def stop(self, name: str) -> None:
        """Ask a member to stop."""
        ...

    def kill(self, name: str) -> None:
        """End a member at once, even if it does not answer. Idempotent."""
        ...

    async def close(self) -> None:
        """End all members, and everything the engine has started."""
        ...


def death_error(name: str, error: BaseException | None, *, starting: bool) -> EngineError:
    """Return the exception for a member that ended with `error`, or was killed if that is None.

    An unreadable input and an error at the start, other than of the disk, are permanent (`EngineError`). Any
    other error is `Unreachable`, so the member is replaced.
    """
    if isinstance(error, UsageError):
        return EngineError(str(error))
    if starting and isinstance(error, DiskFull):
        return NoRoom(str(error))
    if starting and error is not None and not isinstance(error, SinkError):
        return EngineError(f"{name} cannot start: {type(error).__name__}: {error}")
    return Unreachable(f"{name} has died: {f'{type(error).__name__}: {error}' if error else 'killed'}")


def build(spec: MemberSpec, link: Link) -> MemberRuntime:
    """Create a member, in the process where it runs."""
    open_work = {FEEDER: open_feeder, SINK: open_sink}.get(spec.member.kind, open_peer)
    return MemberRuntime(spec, link, open_work)
