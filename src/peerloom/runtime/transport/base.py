"""How a member reaches the others. Each engine implements it; nothing stands between two members."""

from typing import Protocol

from peerloom.errors import EngineError


class Unreachable(EngineError):
    """Another member is dead, or cannot be reached."""


class NoRoom(Unreachable):
    """A member cannot start, as there is no room on the disk: no fault of its own, and it will pass."""


class Link(Protocol):
    """The outgoing side of a member's transport."""

    async def send(self, to: str, data: bytes) -> bytes:
        """Hand an encoded message to a member; its encoded answer, empty if the message has none.

        Raises:
            Unreachable: whether or not the message arrived.
        """
        ...

    def host_of(self, member: str) -> str:
        """The address of the host that a member is on; empty if that is unknown, or there is but one."""
        ...
