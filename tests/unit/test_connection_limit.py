import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

from peerloom.connection_limit import ConnectionLimit

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo(asyncio.Protocol):
    """Says what it hears; `keep` is a request that counts."""

    def __init__(self, limit: ConnectionLimit) -> None:
        self._limit = limit

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data == b"keep":
            self._limit.cancel_timeout(self._transport)
        self._transport.write(data)


@contextlib.asynccontextmanager
async def served(limit: ConnectionLimit) -> AsyncIterator[int]:
    async with asyncio.timeout(30):
        protocol = partial(limit.protocol, lambda: Echo(limit))
        server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
        yield server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()


async def connected(port: int) -> Ends:
    return await asyncio.open_connection("127.0.0.1", port)


async def echo(ends: Ends, said: bytes) -> bytes:
    """What comes back; nothing if the connection is closed."""
    reader, writer = ends
    try:
        writer.write(said)
        return await reader.read(100)
    except ConnectionError:
        return b""


async def close(*all_ends: Ends) -> None:
    for _, writer in all_ends:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_no_more_than_so_many_at_once() -> None:
    async with served(ConnectionLimit(most=2)) as port:
        first, second = await connected(port), await connected(port)
        assert [await echo(each, b"x") for each in (first, second)] == [b"x", b"x"]
        third = await connected(port)
        assert await echo(third, b"x") == b""
        assert await echo(second, b"y") == b"y"
        await close(first, third)
        answer = b""
        while not answer:  # as soon as the server has seen that the first one is gone
            fourth = await connected(port)
            answer = await echo(fourth, b"x")
            await close(fourth)
        await close(second)


async def test_who_says_nothing_that_counts_is_closed() -> None:
    async with served(ConnectionLimit(seconds=0.05)) as port:
        silent, kept, talker = [await connected(port) for _ in range(3)]
        assert await echo(kept, b"keep") == b"keep"
        assert await echo(talker, b"x") == b"x"
        for reader, _ in (silent, talker):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        assert await echo(kept, b"x") == b"x"
        await close(silent, kept, talker)
