"""Compressed connections: the same messages in fewer bytes, and an end to a damaged stream."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import zstandard

from peerloom.runtime.transport import compression, frames
from peerloom.runtime.transport.base import Unreachable
from peerloom.runtime.transport.compression import MIN_BYTES, Damaged, Packer, Unpacker
from peerloom.runtime.transport.connections import Address, MemberListener, connect
from peerloom.runtime.transport.frames import ServerProtocol
from peerloom.runtime.transport.tls import Credentials

CREDENTIALS = Credentials.create()
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


@asynccontextmanager
async def listening(receive: Callable[[bytes], bytes], host: str = "127.0.0.1") -> AsyncGenerator[Address]:
    listener = MemberListener(CREDENTIALS, receive)
    try:
        yield await listener.open(host)
    finally:
        listener.close()
        await asyncio.sleep(0)


async def test_messages_of_all_sizes_and_kinds_arrive_as_they_were() -> None:
    sizes = (0, 1, MIN_BYTES - 1, MIN_BYTES, MIN_BYTES + 1, 4_096, 131_072, 131_073, 3_000_000)
    messages = [make(size) for size in sizes for make in (lambda size: text(size, 1), noise)]
    random.Random(1).shuffle(messages)
    heard: list[bytes] = []
    async with listening(lambda data: heard.append(data) or data[:9]) as address:
        connection = await connect(address, CREDENTIALS, compress="always")
        assert connection.packer
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
        connection = await connect(address, CREDENTIALS, compress="always")
        for message in (short, long, short):
            assert await connection.send(message) == b"y" * 9_999
        connection.close()
    assert packed == [long]


@pytest.mark.parametrize(
    ("compress", "host", "expected"),
    [
        ("auto", "127.0.0.1", False),
        ("never", "127.0.0.1", False),
        ("always", "127.0.0.1", True),
        ("auto", "127.0.0.2", True),
        ("never", "127.0.0.2", False),
        ("always", "127.0.0.2", True),
    ],
)
async def test_auto_compresses_for_other_hosts(
    compress: compression.Compress, host: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not expected:
        monkeypatch.delattr(Packer, "pack")
    async with listening(len_of, host) as address:
        connection = await connect(address, CREDENTIALS, compress=compress)
        assert (connection.packer is not None) is expected
        assert await connection.send(b"a" * 10_000) == b"10000"
        connection.close()


def len_of(data: bytes) -> bytes:
    return str(len(data)).encode()


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
        called = ServerProtocol(receive, set())
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
            connection = await connect(address, CREDENTIALS, compress="always")
            assert [await connection.send(message) for _ in range(2)] == [b"20000"] * 2
            connection.close()
    packer = Packer()
    packer.pack(message)
    with pytest.raises(Damaged):
        Unpacker().unpack(packer.pack(message))


async def test_damage_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[bytes] = []
    async with listening(lambda data: heard.append(data) or b"") as address:
        connection = await connect(address, CREDENTIALS, compress="always")
        monkeypatch.setattr(connection.packer, "pack", lambda _: b"not compressed at all")
        with pytest.raises(Unreachable):
            await connection.send(text(5_000, 1))
        assert connection.broken
    assert heard == []


def test_a_window_larger_than_agreed_is_refused() -> None:
    message = text(1 << 20, 1) * 5
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=23)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    piece = stream.compress(message) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    with pytest.raises(Damaged):
        Unpacker().unpack(piece)


async def test_a_packed_answer_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def packed(self: ServerProtocol, number: int, message: bytes) -> None:  # pyright: ignore[reportPrivateUsage]
        assert self._transport is not None  # pyright: ignore[reportPrivateUsage]
        self._transport.write(head(len(message) | PACKED, number) + message)  # pyright: ignore[reportPrivateUsage]

    monkeypatch.setattr(ServerProtocol, "write", packed)  # pyright: ignore[reportPrivateUsage]
    async with listening(lambda _: Packer().pack(text(900, 1))) as address:
        connection = await connect(address, CREDENTIALS, compress="always")
        with pytest.raises(Unreachable):
            await connection.send(b"a")


async def test_a_message_too_long_for_a_frame_breaks_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_FRAME", 1_000)
    async with listening(len_of) as address:
        connection = await connect(address, CREDENTIALS, compress="never")
        assert await connection.send(b"a" * 1_000) == b"1000"
        sending = asyncio.ensure_future(connection.send(b"a" * 1_001))
        await asyncio.sleep(0)
        assert connection.broken  # nothing was sent: its length might be taken for another
        with pytest.raises(Unreachable):
            await sending
