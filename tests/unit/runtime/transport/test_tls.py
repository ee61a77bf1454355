"""Connections between hosts can be neither read nor changed; 127.0.0.2 stands for another host."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import uvloop

from peerloom.runtime.transport import connections
from peerloom.runtime.transport.base import Unreachable
from peerloom.runtime.transport.connections import Address, ConnectFailed, MemberListener, connect
from peerloom.runtime.transport.tls import Credentials

CREDENTIALS = Credentials.create()
OTHER_HOST = "127.0.0.2"
MESSAGE = b"what nobody else may read " * 40
Change = Callable[[bytes], bytes]


@asynccontextmanager
async def listening(heard: list[bytes]) -> AsyncGenerator[Address]:
    listener = MemberListener(CREDENTIALS, lambda data: heard.append(data) or b"yes")
    try:
        yield await listener.open(OTHER_HOST)
    finally:
        listener.close()
        await asyncio.sleep(0)


class Between:
    """A relay between two hosts, which sees all that is sent and may change it."""

    def __init__(self, address: Address) -> None:
        self.seen = bytearray()
        self.change: Change = lambda data: data
        self._address = address

    @asynccontextmanager
    async def relaying(self) -> AsyncGenerator[Address]:
        server = await asyncio.start_server(self._relay, OTHER_HOST, 0)
        async with server:
            yield self._address._replace(port=server.sockets[0].getsockname()[1])

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._address.host, self._address.port)
        try:
            await asyncio.gather(
                self._pass(reader, back, lambda data: self.change(data)),  # noqa: PLW0108 - tests replace it
                self._pass(there, writer, lambda data: data),
            )
        finally:
            writer.close()
            back.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Change) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                self.seen += data
                writer.write(change(data))
        writer.close()


def altered(data: bytes) -> bytes:
    """With one bit changed in the last byte of a record's encrypted part."""
    return data[:-1] + bytes([data[-1] ^ 1])


def truncated(data: bytes) -> bytes:
    return data[:-1]


def replayed(data: bytes) -> bytes:
    return data + data


async def test_messages_between_hosts_are_encrypted() -> None:
    heard: list[bytes] = []
    async with listening(heard) as address:
        between = Between(address)
        async with between.relaying() as there:
            connection = await connect(there, CREDENTIALS, compress="never")
            assert await connection.send(MESSAGE) == b"yes"
            connection.close()
    assert heard == [MESSAGE]
    assert len(between.seen) > len(MESSAGE)
    assert MESSAGE[:26] not in between.seen


@pytest.mark.parametrize("change", [altered, replayed])
async def test_a_changed_frame_is_not_taken_and_ends_the_connection(change: Change) -> None:
    heard: list[bytes] = []
    async with listening(heard) as address:
        between = Between(address)
        async with between.relaying() as there:
            connection = await connect(there, CREDENTIALS)
            await connection.send(b"first")
            between.change = change
            with suppress(Unreachable):  # of a replayed frame, the first copy is as it should be
                await connection.send(MESSAGE)
            async with asyncio.timeout(10):
                while not connection.broken:  # noqa: ASYNC110 - it has no event
                    await asyncio.sleep(0.01)
            with pytest.raises(Unreachable):
                await connection.send(b"later")
    assert heard in ([b"first"], [b"first", MESSAGE][: 1 + (change is replayed)])


async def test_a_truncated_frame_is_not_taken() -> None:
    heard: list[bytes] = []
    async with listening(heard) as address:
        between = Between(address)
        async with between.relaying() as there:
            connection = await connect(there, CREDENTIALS)
            await connection.send(b"first")
            between.change = truncated
            sending = asyncio.ensure_future(connection.send(MESSAGE))
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(sending), 0.1)
            between.change = lambda data: data
            later = asyncio.ensure_future(connection.send(b"later"))
            answers = await asyncio.gather(sending, later, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unreachable, Unreachable]
    assert heard == [b"first"]


async def test_a_member_of_another_run_is_refused_by_either_end() -> None:
    heard: list[bytes] = []
    other = Credentials.create()
    trusting = other.client_context()
    trusting.verify_mode = ssl.CERT_NONE
    async with listening(heard) as address:
        with pytest.raises(ConnectFailed):
            await connect(address, other)
        reader, writer = await asyncio.open_connection(address.host, address.port, ssl=trusting)
        with suppress(OSError):
            writer.write(b"\0" * 9)
            assert await reader.read() == b""
        writer.close()
    assert heard == []


async def test_a_caller_without_the_certificate_or_without_tls_gets_nothing() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with listening([]) as address:
        for tls in (context, None):
            reader = writer = None
            with suppress(OSError):
                reader, writer = await asyncio.open_connection(address.host, address.port, ssl=tls)
                writer.write(b"GET / HTTP/1.1\r\n\r\n" * 100)
                answer = await reader.read()
                assert (tls is None and answer[:1] == b"\x15") or answer == b""  # at most a TLS alert
            if writer is not None:
                writer.close()


async def test_strangers_in_the_handshake_have_little_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "HANDSHAKE_SECONDS", 0.1)
    async with listening([]) as address:
        idle = [await asyncio.open_connection(address.host, address.port) for _ in range(20)]
        async with asyncio.timeout(10):
            await asyncio.gather(*(reader.read() for reader, _ in idle), return_exceptions=True)
        monkeypatch.undo()
        late = await connect(address, CREDENTIALS)
        assert await late.send(b"ab") == b"yes"
        late.close()
        for _, writer in idle:
            writer.close()


async def test_members_of_one_host_use_a_local_socket() -> None:
    heard: list[bytes] = []
    async with listening(heard) as address:
        connection = await connect(address._replace(port=0), CREDENTIALS, here=OTHER_HOST)
        assert await connection.send(b"ab") == b"yes"
        connection.close()


def test_credentials_are_not_shown() -> None:
    shown = repr(CREDENTIALS)
    assert "PRIVATE" not in shown and "CERTIFICATE" not in shown


def test_ray_members_run_on_uvloop_which_works_too(monkeypatch: pytest.MonkeyPatch) -> None:
    uvloop.run(test_members_of_one_host_use_a_local_socket())
    uvloop.run(test_messages_between_hosts_are_encrypted())
    uvloop.run(test_strangers_in_the_handshake_have_little_time(monkeypatch))
