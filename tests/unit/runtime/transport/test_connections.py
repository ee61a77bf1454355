"""Members' own connections: what is said arrives whole, strangers get nothing, a break is told."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import pytest

from peerloom.connection_limit import ConnectionLimit
from peerloom.runtime.transport.base import Unreachable
from peerloom.runtime.transport.connections import Address, ConnectFailed, MemberConnection, MemberListener
from peerloom.runtime.transport.tls import Credentials

CREDENTIALS = Credentials.create()


def echo(data: bytes) -> bytes:
    return data[::-1]


@asynccontextmanager
async def listening(listener: MemberListener) -> AsyncGenerator[Address]:
    try:
        yield await listener.open("127.0.0.1")
    finally:
        listener.close()
        await asyncio.sleep(0)


async def test_answers_find_their_questions_whatever_the_size() -> None:
    async with listening(MemberListener(CREDENTIALS, echo)) as address:
        connection = await MemberConnection.connect(address, CREDENTIALS)
        questions = [b"", b"ab", b"x" * 70_000 + b"y", bytes(range(256)) * 20_000]
        assert await asyncio.gather(*map(connection.send, questions)) == [
            echo(question) for question in questions
        ]
        connection.close()


async def test_whoever_does_not_know_the_secret_is_not_heard() -> None:
    heard: list[bytes] = []
    async with listening(MemberListener(CREDENTIALS, lambda data: heard.append(data) or b"")) as address:
        with pytest.raises(ConnectFailed):
            await MemberConnection.connect(address, Credentials.create())
        reader, writer = await asyncio.open_connection(address.host, address.local_port)
        writer.write(b"GET / HTTP/1.1\r\n" + b"Host: x\r\n" * 20)
        # A nonce is all it ever gets, and then the end: orderly, or by a reset since it still talked.
        with suppress(ConnectionError):
            assert len(await reader.read()) == 16
        writer.close()
    assert heard == []


async def test_strangers_take_no_more_than_their_places_and_their_time() -> None:
    async with listening(MemberListener(CREDENTIALS, echo, ConnectionLimit(4, 0.1))) as address:
        known = [await MemberConnection.connect(address, CREDENTIALS) for _ in range(6)]  # these do not count
        idle = [await asyncio.open_connection(address.host, address.local_port) for _ in range(20)]
        ends = await asyncio.gather(*(reader.read() for reader, _ in idle), return_exceptions=True)
        assert sum(end != b"" for end in ends) <= 4, "the others were closed before the nonce"
        late = await MemberConnection.connect(address, CREDENTIALS)
        assert await late.send(b"ab") == b"ba"
        assert [await connection.send(b"cd") for connection in known] == [b"dc"] * 6
        for connection in (*known, late):
            connection.close()
        for _, writer in idle:
            writer.close()


async def test_one_who_only_pretends_to_be_the_member_is_not_told_anything() -> None:
    told: list[bytes] = []

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"n" * 16 + b"p" * 32)
        told.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(pretend, "127.0.0.1", 0)
    async with server:
        with pytest.raises(ConnectFailed):
            await MemberConnection.connect(
                Address("127.0.0.1", local_port=server.sockets[0].getsockname()[1]), CREDENTIALS
            )
        await asyncio.sleep(0.01)
    assert [len(what) for what in told] == [16 + 32 + 1]  # its nonce, its proof and codec, no message


@pytest.mark.parametrize(
    "address",
    [Address("127.0.0.1"), Address("127.0.0.1", local_port=1), Address("127.0.0.2", port=1)],
)
async def test_where_nobody_listens_no_connection_is_made(address: Address) -> None:
    with pytest.raises(ConnectFailed):
        await MemberConnection.connect(address, CREDENTIALS)


async def test_a_break_is_told_to_all_who_wait_and_to_whoever_comes_later() -> None:
    listener = MemberListener(CREDENTIALS, lambda _: listener.close() or b"never sent")
    async with listening(listener) as address:
        connection = await MemberConnection.connect(address, CREDENTIALS)
        answers = await asyncio.gather(connection.send(b"a"), connection.send(b"b"), return_exceptions=True)
        assert [type(answer) for answer in answers] == [Unreachable, Unreachable]
        assert connection.broken
        with pytest.raises(Unreachable):
            await connection.send(b"c")


async def test_a_frame_of_a_length_that_cannot_be_ends_the_connection() -> None:
    async with listening(MemberListener(CREDENTIALS, echo)) as address:
        connection = await MemberConnection.connect(address, CREDENTIALS)
        assert connection._protocol._transport is not None  # pyright: ignore[reportPrivateUsage]
        connection._protocol._transport.write(b"\xff" * 8)  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(Unreachable):
            await connection.send(b"a")
