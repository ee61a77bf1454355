"""How a member reaches the others. Each engine implements it; nothing stands between two members."""

from typing import Protocol

from peerloom.errors import EngineError


class Unreachable(EngineError):
    """Another member is dead, or cannot be reached."""


class Link(Protocol):
    """The outgoing side of a member's transport."""

    async def send(self, to: str, data: bytes) -> bytes:
        """Hand an encoded message to a member; its encoded answer, empty if the message has none.

        Raises:
            Unreachable: whether or not the message arrived.
        """
        ...
