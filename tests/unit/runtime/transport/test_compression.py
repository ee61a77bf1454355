"""Compressed connections: the same messages in fewer bytes, and an end to whatever is damaged or swells."""

import asyncio
import hashlib
import hmac
import random
import zlib
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import zstandard

from peerloom.connection_limit import ConnectionLimit
from peerloom.runtime.transport import compression, frames
from peerloom.runtime.transport.base import Unreachable
from peerloom.runtime.transport.compression import MIN_BYTES, Damaged, Packer, Unpacker, should_compress
from peerloom.runtime.transport.connections import Address, ConnectFailed, MemberConnection, MemberListener
from peerloom.runtime.transport.frames import ServerProtocol
from peerloom.runtime.transport.tls import Credentials

CREDENTIALS = Credentials.create()
MOST = 1 << 24
PACKED = 1 << 31


def text(size: int, seed: int) -> bytes:
    """Words in no order."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmno", k=rng.randint(2, 9))) for _ in range(400)]
    return " ".join(rng.choices(words, k=size)).encode()[:size]


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def head(length: int, number: int = 1) -> bytes:
    return length.to_bytes(4, "little") + number.to_bytes(4, "little")


def sealed(stream: bytes, message: bytes) -> bytes:
    """A piece that says the message's length and checksum."""
    return len(message).to_bytes(4, "little") + zlib.crc32(message).to_bytes(4, "little") + stream


@asynccontextmanager
async def listening(receive: Callable[[bytes], bytes]) -> AsyncGenerator[Address]:
    listener = MemberListener(CREDENTIALS, receive)
    try:
        yield await listener.open("127.0.0.1")
    finally:
        listener.close()
        await asyncio.sleep(0)


class Stranger:
    """A calling end that writes what it likes, once it is let in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def knock(cls, address: Address, codec: bytes, claimed: bytes | None = None) -> "Stranger":
        reader, writer = await asyncio.open_connection(address.host, address.local_port)
        nonce = await reader.readexactly(16)
        proof = hmac.digest(CREDENTIALS.secret, b"caller" + codec + nonce, hashlib.sha256)
        writer.write(b"n" * 16 + proof + (codec if claimed is None else claimed))
        return cls(reader, writer)

    async def let_in(self) -> bool:
        try:
            await self.reader.readexactly(32)
        except (asyncio.IncompleteReadError, ConnectionError):
            return False
        return True

    async def hung_up(self) -> bool:
        try:
            return not await self.reader.read(1)
        except ConnectionError:
            return True


async def test_messages_of_all_sizes_and_kinds_arrive_as_they_were() -> None:
    sizes = (0, 1, MIN_BYTES - 1, MIN_BYTES, MIN_BYTES + 1, 4_096, 131_072, 131_073, 3_000_000)
    messages = [make(size) for size in sizes for make in (lambda size: text(size, 1), noise)]
    random.Random(1).shuffle(messages)
    heard: list[bytes] = []
    async with listening(lambda data: heard.append(data) or data[:9]) as address:
        connection = await MemberConnection.connect(address, CREDENTIALS, compress="always")
        assert connection.compressed
        answers = await asyncio.gather(*map(connection.send, messages))
        assert (heard, answers) == (messages, [message[:9] for message in messages])
        connection.close()


async def test_answers_and_short_messages_stay_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[bytes] = []

    def pack(self: Packer, message: bytes) -> bytes:
        packed.append(message)
        return original(self, message)

    original = Packer.pack
    monkeypatch.setattr(Packer, "pack", pack)
    short, long = b"x" * (MIN_BYTES - 1), b"x" * MIN_BYTES
    async with listening(lambda _: b"y" * 9_999) as address:
        connection = await MemberConnection.connect(address, CREDENTIALS, compress="always")
        for message in (short, long, short):
            assert await connection.send(message) == b"y" * 9_999
        connection.close()
    assert packed == [long]


@pytest.mark.parametrize(("compress", "expected"), [("auto", False), ("never", False), ("always", True)])
async def test_on_this_host_only_always_compresses(
    compress: compression.Compress, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not expected:
        monkeypatch.delattr(Packer, "pack")
    async with listening(len_of) as address:
        connection = await MemberConnection.connect(address, CREDENTIALS, compress=compress)
        assert connection.compressed is expected
        assert await connection.send(b"a" * 10_000) == b"10000"
        connection.close()


def len_of(data: bytes) -> bytes:
    return str(len(data)).encode()


@pytest.mark.parametrize(
    ("here", "there", "other"),
    [
        ("10.0.0.1", "10.0.0.2", True),
        ("10.0.0.1", "10.0.0.1", False),
        ("127.0.0.1", "127.0.0.2", False),
        ("::1", "::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_auto_compresses_for_other_hosts(here: str, there: str, other: bool) -> None:
    assert should_compress("auto", here, there) is other
    assert should_compress("always", here, there)
    assert not should_compress("never", here, there)


async def test_the_stream_may_come_in_pieces_cut_anywhere() -> None:
    packer, messages = Packer(), [text(1_100, 1), b"plain", text(1_100, 1) + text(40, 2), b""]
    sent = b""
    for number, message in enumerate(messages):
        packed = packer.pack(message) if len(message) >= MIN_BYTES else b""
        sent += (
            head(len(packed) | PACKED, number) + packed if packed else head(len(message), number) + message
        )
    for cut in range(1, len(sent)):
        heard: list[bytes] = []
        receive = lambda data, heard=heard: heard.append(data) or b""  # noqa: E731
        called = ServerProtocol(b"s", receive, ConnectionLimit(), set())
        called._authenticated, called._unpacker = True, Unpacker(MOST)  # pyright: ignore[reportPrivateUsage]
        called.data_received(sent[:cut])
        called.data_received(sent[cut:])
        assert heard == messages


def test_a_history_that_is_sent_again_is_much_smaller() -> None:
    turns = [text(1_000, seed) for seed in range(6)]
    histories = [b"".join(turns[: count + 1]) for count in range(6)]
    others = [text(3_000, seed) for seed in range(100, 120)]  # of other tasks, in between
    packer, sizes = Packer(), list[int]()
    for history in histories:
        sizes.append(len(packer.pack(history)))
        for other in others:
            packer.pack(other)
    alone = [len(Packer().pack(history)) for history in histories]
    assert sizes[-1] < 0.4 * alone[-1]
    assert all(after < before + 200 for before, after in pairwise(sizes))  # each has one new turn


async def test_a_new_connection_begins_anew() -> None:
    message = text(20_000, 1)
    async with listening(len_of) as address:
        for _ in range(3):
            connection = await MemberConnection.connect(address, CREDENTIALS, compress="always")
            assert [await connection.send(message) for _ in range(2)] == [b"20000"] * 2
            connection.close()
    packer = Packer()
    packer.pack(message)
    with pytest.raises(Damaged):
        Unpacker(MOST).unpack(packer.pack(message))


@pytest.mark.parametrize("message", [text(900, 3), noise(900)], ids=["text", "noise"])
def test_no_damaged_byte_goes_unnoticed(message: bytes) -> None:
    packed = Packer().pack(message)
    for position in range(len(packed)):
        damaged = bytearray(packed)
        damaged[position] ^= 0x10
        try:
            assert Unpacker(MOST).unpack(bytes(damaged)) == message  # a bit of the stream that says nothing
        except Damaged:
            continue
    for end in range(len(packed) - 3):
        with pytest.raises(Damaged):
            Unpacker(MOST).unpack(packed[:end])


@pytest.mark.parametrize("off", [-1, 1])
def test_a_message_has_the_length_that_it_says(off: int) -> None:
    packed, length = Packer().pack(text(900, 1)), 900 + off
    with pytest.raises(Damaged):
        Unpacker(MOST).unpack(length.to_bytes(4, "little") + packed[4:])


async def test_damage_ends_the_connection() -> None:
    heard: list[bytes] = []
    async with listening(lambda data: heard.append(data) or b"") as address:
        connection = await MemberConnection.connect(address, CREDENTIALS, compress="always")
        await connection.send(text(5_000, 1))
        packer = connection._protocol.packer  # pyright: ignore[reportPrivateUsage]
        assert packer is not None
        packer.pack(b"never sent" * 100)
        with pytest.raises(Unreachable):
            await connection.send(text(5_000, 1))
        assert connection.broken
    assert len(heard) == 1


@pytest.mark.parametrize("claimed", [1 << 20, (1 << 26) + 1, (1 << 32) - 1])
def test_what_swells_beyond_what_it_says_is_not_followed(
    claimed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = zstandard.ZstdCompressor(1).compressobj()
    bomb = stream.compress(bytes(1 << 28)) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    assert len(bomb) < 20_000
    monkeypatch.setattr(compression, "_SLICE", 64)
    most = 0
    inflated = Unpacker(1 << 26)
    original = inflated._stream  # pyright: ignore[reportPrivateUsage]

    class Counting:
        def decompress(self, data: bytes) -> bytes:
            nonlocal most
            found = original.decompress(data)
            most += len(found)
            return found

    monkeypatch.setattr(inflated, "_stream", Counting())
    with pytest.raises(Damaged):
        inflated.unpack(claimed.to_bytes(4, "little") + bytes(4) + bomb)
    assert most <= (claimed if claimed <= 1 << 26 else 0) + 16 * (128 << 10)


def test_a_window_larger_than_agreed_is_refused() -> None:
    message = text(1 << 20, 1) * 5
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=23)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    piece = stream.compress(message) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    with pytest.raises(Damaged):
        Unpacker(MOST).unpack(sealed(piece, message))


def test_nothing_follows_the_end_of_a_stream() -> None:
    unpacker, message = Unpacker(MOST), text(900, 1)
    stream = zstandard.ZstdCompressor(1, write_content_size=False).compress(message)
    assert unpacker.unpack(sealed(stream, message)) == message
    with pytest.raises(Damaged):
        unpacker.unpack(sealed(stream, message))


async def test_a_bomb_ends_the_connection() -> None:
    stream = zstandard.ZstdCompressor(1).compressobj()
    bomb = stream.compress(bytes(1 << 24)) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    heard: list[bytes] = []
    async with listening(lambda data: heard.append(data) or b"") as address:
        stranger = await Stranger.knock(address, b"\x01")
        assert await stranger.let_in()
        piece = sealed(bomb, b"a" * 1_000)
        stranger.writer.write(head(len(piece) | PACKED) + piece)
        assert await stranger.hung_up()
        stranger.writer.close()
    assert heard == []


@pytest.mark.parametrize(
    ("codec", "claimed", "welcome"),
    [
        (b"\x00", None, True),
        (b"\x01", None, True),
        (b"\x02", None, False),  # no such codec
        (b"\x00", b"\x01", False),  # not the one that was proved
    ],
)
async def test_the_codec_is_one_there_is_and_the_one_that_was_proved(
    codec: bytes, claimed: bytes | None, welcome: bool
) -> None:
    async with listening(len_of) as address:
        stranger = await Stranger.knock(address, codec, claimed)
        assert await stranger.let_in() is welcome
        stranger.writer.close()


async def test_who_said_plain_cannot_send_what_is_packed() -> None:
    async with listening(len_of) as address:
        stranger = await Stranger.knock(address, b"\x00")
        assert await stranger.let_in()
        packed = Packer().pack(text(900, 1))
        stranger.writer.write(head(len(packed) | PACKED) + packed)
        assert await stranger.hung_up()
        stranger.writer.close()


async def test_a_packed_answer_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def packed(self: ServerProtocol, number: int, message: bytes) -> None:  # pyright: ignore[reportPrivateUsage]
        assert self._transport is not None  # pyright: ignore[reportPrivateUsage]
        self._transport.write(head(len(message) | PACKED, number) + message)  # pyright: ignore[reportPrivateUsage]

    monkeypatch.setattr(ServerProtocol, "write", packed)  # pyright: ignore[reportPrivateUsage]
    async with listening(lambda _: Packer().pack(text(900, 1))) as address:
        connection = await MemberConnection.connect(address, CREDENTIALS, compress="always")
        with pytest.raises(Unreachable):
            await connection.send(b"a")


async def test_a_message_too_long_for_a_frame_breaks_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_FRAME", 1_000)
    async with listening(len_of) as address:
        connection = await MemberConnection.connect(address, CREDENTIALS, compress="never")
        assert await connection.send(b"a" * 1_000) == b"1000"
        sending = asyncio.ensure_future(connection.send(b"a" * 1_001))
        await asyncio.sleep(0)
        assert connection.broken  # nothing was sent: its length might be taken for another
        with pytest.raises(Unreachable):
            await sending


async def test_whoever_knows_no_secret_never_gets_as_far_as_a_codec() -> None:
    async with listening(len_of) as address:
        with pytest.raises(ConnectFailed):
            await MemberConnection.connect(address, Credentials.create(), compress="always")
