"""Implement the protocol of connections between members: numbered frames.

A frame is the length of a message, a number, and the message; its answer has the same number. The calling
end may compress long frames (`runtime.transport.compression`), which a bit of their length marks; short
frames and all answers are not compressed.
"""

import asyncio
import struct
from collections.abc import Callable
from typing import cast

from peerloom.runtime.transport.base import Unreachable
from peerloom.runtime.transport.compression import MIN_BYTES, Damaged, Packer, Unpacker

MAX_FRAME = 1 << 30
"""The maximum bytes of a message; a frame with a greater length is damaged."""

_PACKED = 1 << 31  # bit of a frame's length
_head = struct.Struct("<II")  # length of the message, number


class _FrameProtocol(asyncio.Protocol):
    """The common part of both ends."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self.packer: Packer | None = None
        self.broken = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Handle each frame that is complete."""
        self._buffer += data
        for number, message in self._frames():
            self._take(number, message)

    def connection_lost(self, exc: Exception | None) -> None:
        """Mark the connection as broken."""
        self.broken = True

    def close(self) -> None:
        """Close the connection at once."""
        self.broken = True
        if self._transport is not None:
            self._transport.abort()

    def write(self, number: int, message: bytes) -> None:
        """Send a frame."""
        if self._transport is None or self.broken:
            return
        if len(message) > MAX_FRAME:
            self.close()  # as the other end would
            return
        packed = 0
        if self.packer is not None and len(message) >= MIN_BYTES:
            message, packed = self.packer.pack(message), _PACKED
        self._transport.writelines((_head.pack(packed | len(message), number), message))

    def _take(self, number: int, message: bytes) -> None:
        """Handle a received message."""
        raise NotImplementedError

    def _unpacked(self, message: bytes) -> bytes:
        raise Damaged  # only the calling end compresses

    def _frames(self) -> list[tuple[int, bytes]]:
        buffer, position, found = self._buffer, 0, list[tuple[int, bytes]]()
        while len(buffer) - position >= _head.size and not self.broken:
            length, number = _head.unpack_from(buffer, position)
            length, packed = length & ~_PACKED, length & _PACKED
            end = position + _head.size + length
            if length > MAX_FRAME:
                self.close()
            if end > len(buffer):
                break
            message = bytes(memoryview(buffer)[position + _head.size : end])
            try:
                found.append((number, self._unpacked(message) if packed else message))
            except Damaged:
                self.close()
            position = end
        del buffer[:position]
        return found


class ServerProtocol(_FrameProtocol):
    """The listening end: answers each message.

    Args:
        receive: handles a message and returns the answer.
        connections: the set of open connections, to which this one is added.
    """

    def __init__(self, receive: Callable[[bytes], bytes], connections: "set[ServerProtocol]") -> None:
        super().__init__()
        self._receive = receive
        self._connections = connections
        self._unpacker: Unpacker | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        super().connection_made(transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        super().connection_lost(exc)
        self._connections.discard(self)

    def _unpacked(self, message: bytes) -> bytes:
        if self._unpacker is None:
            self._unpacker = Unpacker()
        return self._unpacker.unpack(message)

    def _take(self, number: int, message: bytes) -> None:
        try:
            answer = self._receive(message)
        except Exception:
            self.close()  # so the sender learns that the message was not handled
            raise
        self.write(number, answer)


class MemberConnection(_FrameProtocol):
    """The calling end: numbers its messages, and matches the answers to them.

    Args:
        compress: whether long messages are compressed.
    """

    def __init__(self, *, compress: bool) -> None:
        super().__init__()
        self.packer = Packer() if compress else None
        self._numbers = 0
        self._answers: dict[int, asyncio.Future[bytes]] = {}

    async def send(self, message: bytes) -> bytes:
        """Send a message and return its answer.

        Raises:
            Unreachable: if the connection broke before the answer arrived.
        """
        if self.broken:
            raise Unreachable("the connection is broken")
        number = self._numbers = (self._numbers + 1) & 0xFFFF_FFFF
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self.write(number, message)
        try:
            return await answer
        finally:
            self._answers.pop(number, None)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        super().connection_lost(exc)
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_exception(Unreachable(f"the connection broke: {exc or 'closed'}"))

    def _take(self, number: int, message: bytes) -> None:
        answer = self._answers.get(number)
        if answer is not None and not answer.done():
            answer.set_result(message)
