"""Implement the protocol of connections between members: a handshake, then numbered frames.

Both ends prove that they know the secret of the run: each sends a nonce, and returns an HMAC of the other's.
The secret itself is never sent. The caller's proof covers a byte that selects compression
(`runtime.transport.compression`). If it is selected, long frames of the caller are compressed, and marked by
a bit of their length; short frames and all answers are not compressed.

A frame is the length of a message, a number, and the message; its answer has the same number.
"""

import asyncio
import hashlib
import hmac
import secrets
import struct
from collections.abc import Callable
from typing import cast

from peerloom.connection_limit import ConnectionLimit
from peerloom.runtime.transport.base import Unreachable
from peerloom.runtime.transport.compression import (
    MIN_BYTES,
    Compress,
    Damaged,
    Packer,
    Unpacker,
    should_compress,
)

MAX_FRAME = 1 << 30
"""The maximum bytes of a message; a frame with a greater length is damaged."""

_NONCE = 16
_PROOF = 32
_PLAIN, _ZSTD = b"\x00", b"\x01"  # how the caller's frames are encoded
_PACKED = 1 << 31  # bit of a frame's length
_head = struct.Struct("<II")  # length of the message, number


class _FrameProtocol(asyncio.Protocol):
    """The common part of both ends."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._nonce = secrets.token_bytes(_NONCE)
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._authenticated = False
        self._unpacker: Unpacker | None = None
        self.packer: Packer | None = None
        self.broken = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the nonce for the other end's proof."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._nonce)

    def data_received(self, data: bytes) -> None:
        """Continue the handshake, then handle each frame that is complete."""
        self._buffer += data
        if not self._authenticated and not self._handshake():
            return
        for number, message in self._frames():
            self._take(number, message)

    def connection_lost(self, exc: Exception | None) -> None:
        """Mark the connection as broken."""
        self.broken = True

    def abort(self) -> None:
        """Close the connection at once."""
        self.broken = True
        if self._transport is not None:
            self._transport.abort()

    def write(self, number: int, message: bytes) -> None:
        """Send a frame."""
        if self._transport is None or self.broken:
            return
        if len(message) > MAX_FRAME:
            self.abort()  # as the other end would
            return
        packed = 0
        if self.packer is not None and len(message) >= MIN_BYTES:
            message, packed = self.packer.pack(message), _PACKED
        self._transport.writelines((_head.pack(packed | len(message), number), message))

    def _handshake(self) -> bool:
        """Take the next step of the handshake; return whether the other end has authenticated."""
        raise NotImplementedError

    def _take(self, number: int, message: bytes) -> None:
        """Handle a received message."""
        raise NotImplementedError

    def _cut(self, size: int) -> bytes | None:
        """Remove and return the first `size` bytes, or None if there are fewer."""
        if len(self._buffer) < size:
            return None
        piece = bytes(self._buffer[:size])
        del self._buffer[:size]
        return piece

    def _prove(self, nonce: bytes, side: bytes) -> bytes:
        return hmac.digest(self._secret, side + nonce, hashlib.sha256)

    def _frames(self) -> list[tuple[int, bytes]]:
        buffer, position, found = self._buffer, 0, list[tuple[int, bytes]]()
        while len(buffer) - position >= _head.size:
            length, number = _head.unpack_from(buffer, position)
            length, packed = length & ~_PACKED, length & _PACKED
            if length > MAX_FRAME:
                self.abort()
                break
            end = position + _head.size + length
            if end > len(buffer):
                break
            message = bytes(memoryview(buffer)[position + _head.size : end])
            try:
                found.append((number, self._unpacked(message) if packed else message))
            except Damaged:
                self.abort()
                break
            position = end
        del buffer[:position]
        return found

    def _unpacked(self, message: bytes) -> bytes:
        if self._unpacker is None:
            raise Damaged
        return self._unpacker.unpack(message)


class ServerProtocol(_FrameProtocol):
    """The listening end: answers each message.

    Args:
        secret: the secret of the run.
        receive: handles a message and returns the answer.
        limit: limits the connections that have not authenticated.
        connections: the set of open connections, to which this one is added.
    """

    def __init__(
        self,
        secret: bytes,
        receive: Callable[[bytes], bytes],
        limit: ConnectionLimit,
        connections: "set[ServerProtocol]",
    ) -> None:
        super().__init__(secret)
        self._receive = receive
        self._limit = limit
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        if not self._limit.admit(cast("asyncio.Transport", transport)):
            self.broken = True
            return
        super().connection_made(transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        super().connection_lost(exc)
        self._connections.discard(self)
        if self._transport is not None:
            self._limit.release(self._transport)

    def _handshake(self) -> bool:
        if len(self._buffer) < _NONCE + _PROOF + 1:
            return False
        nonce, proof, codec = self._cut(_NONCE) or b"", self._cut(_PROOF) or b"", self._cut(1) or b""
        proved = hmac.compare_digest(proof, self._prove(self._nonce, b"caller" + codec))
        if not proved or codec not in {_PLAIN, _ZSTD}:
            self.abort()
            return False
        if codec == _ZSTD:
            self._unpacker = Unpacker(MAX_FRAME)
        assert self._transport is not None
        self._limit.release(self._transport)
        self._transport.write(self._prove(nonce, b"called"))
        self._authenticated = True
        return True

    def _take(self, number: int, message: bytes) -> None:
        try:
            answer = self._receive(message)
        except Exception:
            self.abort()  # so the sender learns that the message was not handled
            raise
        self.write(number, answer)


class ClientProtocol(_FrameProtocol):
    """The calling end: numbers its messages, and matches the answers to them."""

    def __init__(self, secret: bytes, compress: Compress) -> None:
        super().__init__(secret)
        self._compress: Compress = compress
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._numbers = 0
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._proved = False

    async def call(self, message: bytes) -> bytes:
        """Send a message and return its answer."""
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
        for waiting in (self.ready, *self._answers.values()):
            if not waiting.done():
                waiting.set_exception(Unreachable(f"the connection broke: {exc or 'closed'}"))
        if not self.ready.cancelled():
            self.ready.exception()  # or asyncio warns if nobody waits for it

    def _handshake(self) -> bool:
        if not self._proved:
            nonce = self._cut(_NONCE)
            if nonce is None:
                return False
            assert self._transport is not None
            codec = self._codec(self._transport)
            self._transport.write(self._prove(nonce, b"caller" + codec) + codec)
            self._proved = True
        proof = self._cut(_PROOF)
        if proof is None:
            return False
        if not hmac.compare_digest(proof, self._prove(self._nonce, b"called")):
            self.abort()
            return False
        self._authenticated = True
        if not self.ready.done():
            self.ready.set_result(None)
        return True

    def _codec(self, transport: asyncio.Transport) -> bytes:
        """Choose the encoding of the frames, which depends on both addresses."""
        here, there = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        if not here or not there or not should_compress(self._compress, here[0], there[0]):
            return _PLAIN  # a connection that is closed already has no peer name
        self.packer = Packer()
        return _ZSTD

    def _take(self, number: int, message: bytes) -> None:
        answer = self._answers.get(number)
        if answer is not None and not answer.done():
            answer.set_result(message)
