"""Connections of the members' own: a batch is one write here and one read there.

An actor call costs its two ends about half a millisecond of CPU together, and carries what is above 100 KB
through the object store. So each member listens on a port, and whoever sends to it keeps one connection
open. A frame is its length, a number and an encoded message; its answer bears the same number.

Who knocks must know the run's secret, and so must who opens; it reaches the members by the engine's own
means, and never travels here. What follows is neither encrypted nor signed, as little as the cluster's own.

The caller's proof covers a byte that says whether it compresses (`runtime/compression.py`). If so, its longer
frames are packed, which a bit of their length says; short ones and all answers stay as they are.

A connection that breaks says nothing about what had arrived: all that awaits an answer on it is
`Unreachable`, and only the census decides. One that was never made carried nothing.
"""

import asyncio
import hashlib
import hmac
import secrets
import struct
from collections.abc import Callable
from typing import NamedTuple, cast

from peerloom.connection_limit import ConnectionLimit
from peerloom.runtime.compression import LEAST, Compress, Damaged, Packer, Unpacker, worth_it
from peerloom.runtime.link import Unreachable

KNOCK_SECONDS = 5.0
MAX_FRAME = 1 << 30  # what says it is longer is damage

_NONCE = 16
_PROOF = 32
_PLAIN, _ZSTD = b"\x00", b"\x01"  # what the caller says about its frames
_PACKED = 1 << 31  # bit of a frame's length
_head = struct.Struct("<II")  # length of the message, number


class Address(NamedTuple):
    """Where a member listens; port 0 if it could not."""

    host: str
    port: int


class NoDoor(Exception):
    """There is no connection to be had; nothing was sent."""


class Door:
    """Where a member is spoken to.

    Args:
        secret: of the run.
        receive: takes a message in, at once; its answer, empty if it has none.
        limit: of the callers that have not proved yet that they know the secret.
    """

    def __init__(
        self, secret: bytes, receive: Callable[[bytes], bytes], limit: ConnectionLimit | None = None
    ) -> None:
        self.secret = secret
        self.receive = receive
        self.limit = limit or ConnectionLimit(seconds=KNOCK_SECONDS)
        self.callers: set[_Caller] = set()
        self._server: asyncio.Server | None = None

    async def open(self, host: str) -> Address:
        """Listen on a free port of this host's address."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: _Caller(self), host, 0)
        except OSError:
            return Address(host, 0)
        return Address(host, self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Hang up: whatever is on its way to here counts as lost."""
        if self._server is not None:
            self._server.close()
        for caller in list(self.callers):
            caller.hang_up()


class Wire:
    """The calling end of one connection. Made by `dial`."""

    def __init__(self, protocol: "_Calling") -> None:
        self._protocol = protocol

    @classmethod
    async def dial(cls, address: Address, secret: bytes, compress: Compress = "auto") -> "Wire":
        """Connect to a member.

        Args:
            address: where it listens.
            secret: of the run.
            compress: whether what is sent is compressed.

        Raises:
            NoDoor: if it is not to be reached this way.
        """
        if not address.port:
            raise NoDoor
        loop = asyncio.get_running_loop()
        protocol = _Calling(secret, compress)
        try:
            async with asyncio.timeout(KNOCK_SECONDS):
                await loop.create_connection(lambda: protocol, *address)
                await protocol.known
        except (OSError, TimeoutError, Unreachable) as error:
            protocol.hang_up()
            raise NoDoor from error
        return cls(protocol)

    @property
    def broken(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._protocol.broken

    @property
    def compressed(self) -> bool:
        """Whether it compresses what it sends."""
        return self._protocol.packer is not None

    async def send(self, data: bytes) -> bytes:
        """Send a message; its answer.

        Raises:
            Unreachable: if the connection broke before there was one.
        """
        return await self._protocol.call(data)

    def close(self) -> None:
        """Hang up."""
        self._protocol.hang_up()


class _Framed(asyncio.Protocol):
    """What both ends have in common: a handshake of fixed sizes, then frames."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._nonce = secrets.token_bytes(_NONCE)
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._trusted = False
        self._unpacker: Unpacker | None = None
        self.packer: Packer | None = None
        self.broken = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The nonce that the other end has to prove itself with."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._nonce)

    def data_received(self, data: bytes) -> None:
        """Whatever came, in pieces of any size."""
        self._buffer += data
        if not self._trusted and not self._greet():
            return
        for number, message in self._frames():
            self._take(number, message)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing will come any more."""
        self.broken = True

    def hang_up(self) -> None:
        """End the connection at once."""
        self.broken = True
        if self._transport is not None:
            self._transport.abort()

    def write(self, number: int, message: bytes) -> None:
        """Send a frame."""
        if self._transport is None or self.broken:
            return
        if len(message) > MAX_FRAME:
            self.hang_up()  # as the other end would
            return
        packed = 0
        if self.packer is not None and len(message) >= LEAST:
            message, packed = self.packer.pack(message), _PACKED
        self._transport.writelines((_head.pack(packed | len(message), number), message))

    def _greet(self) -> bool:
        """Take the handshake's next step; whether it is over and the other end is trusted."""
        raise NotImplementedError

    def _take(self, number: int, message: bytes) -> None:
        """A message has come."""
        raise NotImplementedError

    def _cut(self, size: int) -> bytes | None:
        """The first bytes of what has come, once all are there."""
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
                self.hang_up()
                break
            end = position + _head.size + length
            if end > len(buffer):
                break
            message = bytes(memoryview(buffer)[position + _head.size : end])
            try:
                found.append((number, self._unpacked(message) if packed else message))
            except Damaged:
                self.hang_up()
                break
            position = end
        del buffer[:position]
        return found

    def _unpacked(self, message: bytes) -> bytes:
        if self._unpacker is None:
            raise Damaged
        return self._unpacker.unpack(message)


class _Caller(_Framed):
    """The called end: it answers what it is asked."""

    def __init__(self, door: Door) -> None:
        super().__init__(door.secret)
        self._door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self._door.limit.admit(cast("asyncio.Transport", transport)):
            self.broken = True
            return
        super().connection_made(transport)
        self._door.callers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._door.callers.discard(self)
        if self._transport is not None:
            self._door.limit.release(self._transport)

    def _greet(self) -> bool:
        if len(self._buffer) < _NONCE + _PROOF + 1:
            return False
        nonce, proof, codec = self._cut(_NONCE) or b"", self._cut(_PROOF) or b"", self._cut(1) or b""
        proved = hmac.compare_digest(proof, self._prove(self._nonce, b"caller" + codec))
        if not proved or codec not in {_PLAIN, _ZSTD}:
            self.hang_up()
            return False
        if codec == _ZSTD:
            self._unpacker = Unpacker(MAX_FRAME)
        assert self._transport is not None
        self._door.limit.release(self._transport)
        self._transport.write(self._prove(nonce, b"called"))
        self._trusted = True
        return True

    def _take(self, number: int, message: bytes) -> None:
        try:
            answer = self._door.receive(message)
        except Exception:
            self.hang_up()  # the sender learns from it that something is wrong here
            raise
        self.write(number, answer)


class _Calling(_Framed):
    """The calling end: it numbers what it asks, and hands out the answers."""

    def __init__(self, secret: bytes, compress: Compress) -> None:
        super().__init__(secret)
        self._compress: Compress = compress
        self.known: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._numbers = 0
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._proved = False

    async def call(self, message: bytes) -> bytes:
        """Send one message, and wait for its answer."""
        if self.broken:
            raise Unreachable("the connection is broken")
        number = self._numbers = (self._numbers + 1) & 0xFFFF_FFFF
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        self.write(number, message)
        try:
            return await answer
        finally:
            self._asked.pop(number, None)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for waiting in (self.known, *self._asked.values()):
            if not waiting.done():
                waiting.set_exception(Unreachable(f"the connection broke: {exc or 'closed'}"))
        if not self.known.cancelled():
            self.known.exception()  # nobody may be waiting for it any more

    def _greet(self) -> bool:
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
            self.hang_up()
            return False
        self._trusted = True
        if not self.known.done():
            self.known.set_result(None)
        return True

    def _codec(self, transport: asyncio.Transport) -> bytes:
        """What the frames will be, decided once both addresses are known."""
        here, there = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        if not here or not there or not worth_it(self._compress, here[0], there[0]):
            return _PLAIN  # one that has been cut off already has no other end
        self.packer = Packer()
        return _ZSTD

    def _take(self, number: int, message: bytes) -> None:
        asked = self._asked.get(number)
        if asked is not None and not asked.done():
            asked.set_result(message)
