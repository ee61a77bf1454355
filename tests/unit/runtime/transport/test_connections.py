"""Members' own connections: what is said arrives whole, strangers get nothing, a break is told."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from peerloom.runtime.transport.base import Unreachable
from peerloom.runtime.transport.connections import Address, ConnectFailed, MemberListener, connect
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
        connection = await connect(address, CREDENTIALS)
        questions = [b"", b"ab", b"x" * 70_000 + b"y", bytes(range(256)) * 20_000]
        assert await asyncio.gather(*map(connection.send, questions)) == [
            echo(question) for question in questions
        ]
        connection.close()


async def test_only_its_user_reaches_a_local_member() -> None:
    listener = MemberListener(CREDENTIALS, echo)
    async with listening(listener) as address:
        folder = Path(address.local).parent
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()


@pytest.mark.parametrize(
    "address",
    [Address("127.0.0.1"), Address("127.0.0.1", local="/nowhere/member"), Address("127.0.0.2", port=1)],
)
async def test_where_nobody_listens_no_connection_is_made(address: Address) -> None:
    with pytest.raises(ConnectFailed):
        await connect(address, CREDENTIALS)


async def test_where_the_socket_is_not_found_tls_is_used() -> None:
    listener = MemberListener(CREDENTIALS, echo)
    try:
        address = await listener.open("localhost")
        elsewhere = address._replace(local="/nowhere/member")
        connection = await connect(elsewhere, CREDENTIALS, here=address.host)
        assert await connection.send(b"ab") == b"ba"
        connection.close()
    finally:
        listener.close()
        await asyncio.sleep(0)


async def test_a_break_is_told_to_all_who_wait_and_to_whoever_comes_later() -> None:
    listener = MemberListener(CREDENTIALS, lambda _: listener.close() or b"never sent")
    async with listening(listener) as address:
        connection = await connect(address, CREDENTIALS)
        answers = await asyncio.gather(connection.send(b"a"), connection.send(b"b"), return_exceptions=True)
        assert [type(answer) for answer in answers] == [Unreachable, Unreachable]
        assert connection.broken
        with pytest.raises(Unreachable):
            await connection.send(b"c")


async def test_a_frame_of_a_length_that_cannot_be_ends_the_connection() -> None:
    async with listening(MemberListener(CREDENTIALS, echo)) as address:
        connection = await connect(address, CREDENTIALS)
        assert connection._transport is not None  # pyright: ignore[reportPrivateUsage]
        connection._transport.write(b"\xff" * 8)  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(Unreachable):
            await connection.send(b"a")


async def test_where_the_path_of_a_socket_is_too_long_tls_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    async with listening(MemberListener(CREDENTIALS, echo)) as address:
        assert not address.local
        connection = await connect(address, CREDENTIALS)
        assert await connection.send(b"ab") == b"ba"
        connection.close()
