"""Define the interface through which a member sends messages directly to the others."""

from typing import Protocol

from peerloom.errors import EngineError


class Unreachable(EngineError):
    """Another member is dead or cannot be reached."""


class NoRoom(Unreachable):
    """A member cannot start while the disk is full."""


class Link(Protocol):
    """Sends messages to other members. Each engine implements it."""

    async def send(self, to: str, data: bytes) -> bytes:
        """Send an encoded message to a member, and return its encoded answer; empty if there is none.

        Raises:
            Unreachable: if there was no answer; the message may have arrived.
        """
        ...

    def host_of(self, member: str) -> str:
        """Return the address of a member's host; empty if it is unknown, or there is only one host."""
        ...
