"""What only the native client promises: when a request is sent again, and what becomes of its connections."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from wire_server import Client, wire_server
from yarl import URL

from peerloom.errors import ConfigError
from peerloom.services.llm.http import connection, pool
from peerloom.services.llm.http.aiohttp_transport import AiohttpTransport
from peerloom.services.llm.http.base import HttpResponse, TransportError
from peerloom.services.llm.http.endpoint import Endpoint
from peerloom.services.llm.http.pool import Http1Transport

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@asynccontextmanager
async def native(url: str, *, seconds: float = 5.0, **fields: float) -> AsyncIterator[Http1Transport]:
    carrier = Http1Transport(URL(url), {}, **{"seconds": seconds, "connect_seconds": seconds, **fields})
    try:
        yield carrier
    finally:
        await carrier.close()


async def post(carrier: Http1Transport, url: str) -> HttpResponse:
    return await carrier.send("POST", URL(url), b"{}", {})


def then(*last: bytes):
    """The first connection answers once, and to its second request so; all others answer."""

    async def act(client: Client) -> None:
        first = client.number == 0
        await client.request()
        await client.send(OK)
        await client.request()
        await client.send(*(last if first else [OK]))

    return act


async def test_a_request_to_a_connection_that_was_being_closed_is_sent_again() -> None:
    async with wire_server(then()) as server, native(server.url) as carrier:
        for _ in range(2):
            assert (await post(carrier, server.url)).status == 200
    assert (server.connections, len(server.requests)) == (2, 3)


async def test_it_is_not_once_something_came_back() -> None:
    async with wire_server(then(b"H")) as server, native(server.url) as carrier:
        await post(carrier, server.url)
        with pytest.raises(TransportError, match="disconnected before the answer"):
            await post(carrier, server.url)
    assert len(server.requests) == 2


async def test_nor_when_it_took_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_STALE_SECONDS", 0.0)
    async with wire_server(then()) as server, native(server.url) as carrier:
        await post(carrier, server.url)
        with pytest.raises(TransportError, match="disconnected before the answer"):
            await post(carrier, server.url)
    assert len(server.requests) == 2


async def test_a_request_to_a_new_connection_is_sent_once() -> None:
    async def act(client: Client) -> None:
        await client.request()

    async with wire_server(act) as server, native(server.url) as carrier:
        with pytest.raises(TransportError, match="disconnected before the answer"):
            await post(carrier, server.url)
    assert len(server.requests) == 1


async def test_what_comes_unasked_closes_the_connection() -> None:
    async def act(client: Client) -> None:
        await client.request()
        await client.send(OK)
        if client.number == 0:
            await asyncio.sleep(0.005)
            await client.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        await client.gone()

    async with wire_server(act) as server, native(server.url) as carrier:
        await post(carrier, server.url)
        await server.empty()
        assert (await post(carrier, server.url)).status == 200
    assert server.connections == 2


async def test_connections_that_nobody_needs_are_closed_and_the_others_kept() -> None:
    async def act(client: Client) -> None:
        while True:
            await client.request()
            await asyncio.sleep(0.002)
            await client.send(OK)

    async with wire_server(act) as server, native(server.url, keepalive_seconds=0.05) as carrier:
        await asyncio.gather(*(post(carrier, server.url) for _ in range(5)))
        assert server.open == 5
        while server.open > 1:
            await post(carrier, server.url)
        assert server.connections == 5, "one was in use all the time"
        await server.empty()
        await post(carrier, server.url)
    assert server.connections == 6


async def test_a_server_that_never_shakes_hands_took_nothing() -> None:
    async with wire_server(Client.gone) as server:
        url = server.url.replace("http:", "https:")
        async with native(url, connect_seconds=0.05) as carrier:
            with pytest.raises(TransportError, match=r"timeout .no connection to 127.* in 0.05 s") as caught:
                await post(carrier, url)
        await server.empty()
    assert not caught.value.taken


async def test_of_several_addresses_one_that_answers_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(client: Client) -> None:
        await client.request()
        await client.send(OK)

    async with wire_server(act) as server:
        looked: list[str] = []

        async def look(host: str, port: int, **_: object) -> list[tuple]:
            looked.append(host)
            kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
            return [(*kind, (address, port)) for address in ("127.0.0.2", "127.0.0.1")]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look)
        url = server.url.replace("127.0.0.1", "model.example")
        async with native(url) as carrier:
            for _ in range(3):
                assert (await post(carrier, url)).status == 200
                await server.empty()
    assert looked == ["model.example"]
    assert all(f"Host: model.example:{server.port}\r\n" in head for head, _ in server.requests)


async def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look(host: str, port: int, **_: object) -> list[tuple]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look)
    async with native("http://nobody.example/v1") as carrier:
        with pytest.raises(
            TransportError, match=r"cannot connect to nobody.example:80 .*not known"
        ) as caught:
            await post(carrier, "http://nobody.example/v1")
    assert not caught.value.taken


async def test_an_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_RESPONSE", 1_000_000)

    async def act(client: Client) -> None:
        await client.request()
        await client.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await client.send(b"x" * 65536)

    async with wire_server(act) as server, native(server.url) as carrier:
        with pytest.raises(TransportError, match="too large"):
            await post(carrier, server.url)
        await server.empty()


async def test_what_an_endpoint_is_reached_by(monkeypatch: pytest.MonkeyPatch) -> None:
    async def carried(**fields: str) -> type:
        carrier = Endpoint(base_url="http://model.example/v1", **fields).open_transport({})  # type: ignore[arg-type]
        await carrier.close()
        return type(carrier)

    monkeypatch.delenv("http_proxy", raising=False)
    assert [await carried(), await carried(http="aiohttp")] == [Http1Transport, AiohttpTransport]
    monkeypatch.setenv("http_proxy", "http://proxy.example")
    assert [await carried(), await carried(http="aiohttp")] == [AiohttpTransport, AiohttpTransport]
    with pytest.raises(ConfigError, match=r"llm.http=native supports no proxy, and model.example needs one"):
        await carried(http="native")
    monkeypatch.setenv("no_proxy", "model.example")
    assert await carried(http="native") is Http1Transport
    with pytest.raises(ConfigError, match="it must be one of auto, native, aiohttp"):
        Endpoint(base_url="http://x/v1", http="curl")  # type: ignore[arg-type]  # the point
