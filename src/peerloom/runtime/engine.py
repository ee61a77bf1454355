"""What the run needs of an engine: start members, reach them, notice their death_error."""

from collections.abc import Callable
from typing import Protocol

from peerloom.errors import EngineError, UsageError
from peerloom.protocol.view import ALONE, FEEDER, PEER
from peerloom.runtime.member.feeder import FeederHost
from peerloom.runtime.member.host import Host
from peerloom.runtime.member.peer import PeerHost
from peerloom.runtime.member.sink import SinkHost
from peerloom.runtime.member.spec import MemberSpec
from peerloom.runtime.transport.base import Link, NoRoom, Unreachable
from peerloom.services.processes.spawn import Spawner
from peerloom.sink.errors import DiskFull, SinkError


class Engine(Protocol):
    """Members by name. Whatever reaches out to one raises `Unreachable` if it is gone."""

    @property
    def step(self) -> str:
        """What `start` does, for a person to read; empty if it takes no time."""
        ...

    async def start(self) -> None:
        """Make ready to start members.

        Raises:
            EngineError: if that is not possible here.
        """
        ...

    def spawner(self) -> Spawner:
        """What starts the processes that services need; usable before `start`."""
        ...

    def address(self) -> str:
        """Where other hosts of the cluster reach this process, once started; 127.0.0.1 if there are none."""
        ...

    async def spawn(self, spec: MemberSpec, on_wait: Callable[[str], None]) -> tuple[str, int]:
        """Start a member, and wait until it takes messages in; its node and process id.

        While there is no room for its process at present, `on_wait` is called with what is missing_resources, and
        the wait goes on for as long as that lasts.

        Raises:
            NoRoom: if there is no room on the disk at present for what it needs to start.
            Unreachable: if its process dies before that.
            EngineError: if it cannot start, and never will.
        """
        ...

    def names(self) -> list[str]:
        """The members there are."""
        ...

    async def introduce(self, name: str) -> None:
        """Tell a member how to reach all others."""
        ...

    async def wait(self, name: str) -> bytes:
        """Wait until a member has stopped as requested, for its last figures.

        Raises:
            Unreachable: if it dies; a replacement may do better.
            EngineError: if it ended for a reason that would end its replacement too.
        """
        ...

    async def notify(self, name: str, data: bytes) -> None:
        """Hand a member an encoded message from the coordinator."""
        ...

    async def poll_events(self, name: str) -> list[bytes]:
        """Wait for what a member has to tell the coordinator."""
        ...

    async def ping(self, name: str) -> None:
        """Wait for a sign of life, independent of how busy the member is."""
        ...

    async def stats(self, name: str) -> bytes:
        """A member's figures, encoded."""
        ...

    async def stop(self, name: str) -> None:
        """Ask a member to stop."""
        ...

    def kill(self, name: str) -> None:
        """End a member at once, whether or not it still answers; no harm if it is gone."""
        ...

    async def close(self) -> None:
        """End all members and whatever the engine has started."""
        ...


def death_error(name: str, error: BaseException | None, *, starting: bool) -> EngineError:
    """What to raise for a member that ended with `error`, or was killed if that is None.

    An input that cannot be read any more is the user's to mend, and what fails when it starts will
    fail again, unless it is the disk; anything else is worth another try.
    """
    if isinstance(error, UsageError):
        return EngineError(str(error))
    if starting and isinstance(error, DiskFull):
        return NoRoom(str(error))
    if starting and error is not None and not isinstance(error, SinkError):
        return EngineError(f"{name} cannot start: {type(error).__name__}: {error}")
    return Unreachable(f"{name} has died: {f'{type(error).__name__}: {error}' if error else 'killed'}")


def build(spec: MemberSpec, link: Link) -> Host:
    """The host for a member, to be run in the process that is to be it."""
    kind = spec.member.kind
    if kind in (PEER, ALONE):
        return PeerHost(spec, link)
    if kind == FEEDER:
        return FeederHost(spec, link)
    return SinkHost(spec, link)
