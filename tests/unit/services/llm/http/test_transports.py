"""The native client and aiohttp side by side, against whatever a server may do, on both event loops."""

import asyncio
import inspect
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path

import pytest
import uvloop
from wire_server import Client, WireServer, certificate, wire_server

from peerloom.services.llm.http.aiohttp_transport import AiohttpTransport
from peerloom.services.llm.http.base import HttpResponse, TransportError
from peerloom.services.llm.http.endpoint import Endpoint
from peerloom.services.llm.http.pool import Http1Transport

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
Post = Callable[..., Awaitable[HttpResponse]]
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates with openssl")


@pytest.fixture(params=["native", "aiohttp"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def both(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    """Run a test on uvloop, as runs do, and on asyncio's own loop."""

    @wraps(test)
    def run(loop: str, **fixtures: object) -> None:
        factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(test(**fixtures))

    names = inspect.signature(test).parameters.values()
    loop = inspect.Parameter("loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = inspect.Signature([loop, *names])  # type: ignore[attr-defined]  # pytest reads it
    return pytest.mark.parametrize("loop", ["uvloop", "asyncio"])(run)


@asynccontextmanager
async def calling(url: str, kind: str, seconds: float = 5.0) -> AsyncIterator[Post]:
    """Posts to `url`; that the right one does is checked, and that nothing is left of it."""
    endpoint = Endpoint(base_url=url, timeout=seconds, http=kind)  # type: ignore[arg-type]
    carrier = endpoint.open_transport({"Authorization": "Bearer k"})
    assert type(carrier) is (Http1Transport if kind == "native" else AiohttpTransport)

    async def post(body: bytes = b"{}", **headers: str) -> HttpResponse:
        return await carrier.send("POST", endpoint.url("/chat"), body, headers)

    try:
        yield post
    finally:
        await carrier.close()


def always(*pieces: bytes, close: bool = False) -> Callable[[Client], Awaitable[None]]:
    """Every request is answered so."""

    async def act(client: Client) -> None:
        while True:
            await client.request()
            await client.send(*pieces)
            if close:
                return

    return act


def single_bytes(answer: bytes) -> list[bytes]:
    return [answer[at : at + 1] for at in range(len(answer))]


@pytest.mark.parametrize(
    ("pieces", "status", "body"),
    [
        ([OK], 200, b"{}"),
        (single_bytes(OK), 200, b"{}"),
        ([CHUNKED + b"2\r\n{}\r\n0\r\n\r\n"], 200, b"{}"),
        (single_bytes(CHUNKED + b"1\r\n{\r\n1;x=y\r\n}\r\n0\r\nX-Trailer: 1\r\n\r\n"), 200, b"{}"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", OK], 200, b"{}"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n" + OK], 200, b"{}"),
        ([b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", b"HTTP/1.1 102 X\r\n\r\n" + OK], 200, b"{}"),
        ([b"HTTP/1.1 404\r\ncontent-length:4\r\n\r\ngone"], 404, b"gone"),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], 204, b""),
        ([b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"], 500, b""),
        ([b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"], 302, b""),
        ([b"HTTP/1.1 200 OK\r\nX:\r\nContent-Encoding: identity\r\nContent-Length: 2\r\n\r\nno"], 200, b"no"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n", *[b"x" * 50_000] * 6], 200, b"x" * 300_000),
    ],
)
@both
async def test_an_answer_however_it_comes_and_its_connection_is_kept(kind, pieces, status, body) -> None:
    async with wire_server(always(*pieces)) as server, calling(server.url, kind) as post:
        for _ in range(3):
            answer = await post()
            assert (answer.status, answer.body) == (status, body)
    assert (server.connections, len(server.requests)) == (1, 3)


@pytest.mark.parametrize(
    ("pieces", "body"),
    [
        ([b"HTTP/1.0 200 OK\r\n\r\n", b"to the", b" end"], b"to the end"),
        ([b"HTTP/1.1 200 OK\r\n\r\nto the end"], b"to the end"),
        ([b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"], b""),
        ([b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"], b"{}"),
        ([b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}"], b"{}"),
    ],
)
@both
async def test_a_connection_that_closes_is_another_next_time(kind, pieces, body) -> None:
    async with wire_server(always(*pieces, close=True)) as server, calling(server.url, kind) as post:
        for _ in range(3):
            assert (await post()).body == body
    assert (server.connections, len(server.requests)) == (3, 3)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"])
@both
async def test_a_connection_to_be_closed_is_not_used_though_the_server_leaves_it_open(kind, answer) -> None:
    async with wire_server(always(answer)) as server, calling(server.url, kind) as post:
        await post()
        await post()
    assert server.connections == 2


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"HTT"],
        [b"HTTP/1.1 200 OK\r\nContent-"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"],
        [OK[:-1]],
        [CHUNKED],
        [CHUNKED, b"5\r\nab"],
        [CHUNKED + b"2\r\n{}\r\n"],
        [b"HTTP/1.1 100 Continue\r\n\r\n"],
        [b"SPDY/9 nonsense\r\n\r\n"],
        [b"\x00\xff\x16\x03garbage" * 50],
        [b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n{}"],
        [CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 200_000 + b"\r\nContent-Length: 2\r\n\r\n{}"],
        [b"HTTP/1.1 200 OK\r\n" + b"X-Y: 12345678\r\n" * 20_000 + b"Content-Length: 2\r\n\r\n{}"],
        [b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"],
    ],
)
@both
async def test_what_is_no_answer_fails_at_once_and_leaves_no_connection(kind, pieces) -> None:
    if kind == "aiohttp" and pieces and (b"101" in pieces[0] or pieces[0].count(b"X-Y") > 1):
        pytest.skip("aiohttp takes these for answers")

    async def act(client: Client) -> None:
        await client.request()
        await client.send(*pieces)
        if pieces and (b"garbage" in pieces[0] or len(pieces[0]) > 100_000):
            await client.gone()  # the client is the one who has to go

    async with wire_server(act) as server, calling(server.url, kind) as post:
        with pytest.raises(TransportError) as caught:
            await post()
        await server.empty()
    assert caught.value.taken
    assert len(server.requests) == 1


@both
async def test_a_reset_is_no_answer(kind) -> None:
    async def act(client: Client) -> None:
        await client.request()
        client.writer.transport.abort()

    async with wire_server(act) as server, calling(server.url, kind) as post:
        with pytest.raises(TransportError):
            await post()


@both
async def test_nobody_listens(kind) -> None:
    async with wire_server(always(OK)) as server:
        url = server.url
    async with calling(url, kind) as post:
        with pytest.raises(TransportError, match=r"(?i)cannot connect") as caught:
            await post()
    assert not caught.value.taken


@both
async def test_a_second_answer_is_never_taken_for_that_of_the_next_request(kind) -> None:
    async def act(client: Client) -> None:
        _, body = await client.request()
        echo = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        await client.send(echo + OK)
        await client.gone()

    async with wire_server(act) as server, calling(server.url, kind) as post:
        for body in (b"one", b"two", b"three"):
            assert (await post(body)).body == body
    assert server.connections == 3


@both
async def test_an_answer_before_the_request_was_read(kind) -> None:
    async def act(client: Client) -> None:
        await client.reader.readuntil(b"\r\n\r\n")
        await client.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await asyncio.Event().wait()

    async with wire_server(act) as server, calling(server.url, kind) as post:
        for _ in range(2):
            answer = await post(b"x" * 30_000_000)
            assert (answer.status, answer.body) == (413, b"big")
    assert server.connections == 2


@both
async def test_a_large_body_arrives_whole(kind) -> None:
    body = bytes(range(256)) * 20_000
    async with wire_server(always(OK)) as server, calling(server.url, kind) as post:
        await post(body)
        await post(b"")
    assert [sent for _, sent in server.requests] == [body, b""]


@both
async def test_what_is_sent(kind) -> None:
    cookie = OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=b\r\n\r\n")
    async with wire_server(always(cookie)) as server, calling(f"{server.url}?v=1", kind) as post:
        await post(**{"X-Session-ID": "Zürich"})
        await post()
        for broken in ("a\r\nX-Evil: 1", "a\nb", "a\x00b"):
            with pytest.raises(ValueError, match="header"):
                await post(**{"X-Session-ID": broken})
    first, second = (head.encode("latin-1").decode() for head, _ in server.requests)
    assert first.startswith("POST /v1/chat?v=1 HTTP/1.1\r\n")
    for line in (
        f"Host: 127.0.0.1:{server.port}",
        "Content-Type: application/json",
        "Accept-Encoding: identity, gzip;q=0.5, deflate;q=0.5, zstd;q=0.5",
        "Authorization: Bearer k",
        "Content-Length: 2",
        "X-Session-ID: Zürich",
    ):
        assert f"\r\n{line}\r\n" in first
    assert "Cookie" not in second and second.count("Accept-Encoding") == 1


@pytest.mark.parametrize("pieces", [[], [b"HTTP/1.1 200 OK\r\n"], [OK[:-1]], [CHUNKED]])
@both
async def test_time_is_up_wherever_the_server_has_come_to(kind, pieces) -> None:
    async def act(client: Client) -> None:
        await client.request()
        await client.send(*pieces)
        await client.gone()

    async with wire_server(act) as server, calling(server.url, kind, seconds=0.05) as post:
        with pytest.raises(TransportError, match=r"timeout .no reply in 0.05 s") as caught:
            await post()
        await server.empty()
    assert caught.value.taken


@both
async def test_a_cancelled_call_closes_its_connection_and_disturbs_no_other(kind) -> None:
    async def act(client: Client) -> None:
        while True:
            _, body = await client.request()
            await asyncio.sleep(0.001 * (int(body) % 3))
            await client.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async with wire_server(act) as server, calling(server.url, kind) as post:
        for turn in range(5):
            calls = [asyncio.create_task(post(b"%d" % number)) for number in range(40)]
            await asyncio.sleep(0.0005 * turn)
            for call in calls[::3]:
                call.cancel()
            answers = await asyncio.gather(*calls, return_exceptions=True)
            for number, answer in enumerate(answers):
                if not isinstance(answer, asyncio.CancelledError):
                    assert answer.body == b"%d" % number  # type: ignore[union-attr]
                else:
                    assert number % 3 == 0
        assert server.open <= 40
    await server.empty()


@both
async def test_closing_ends_calls_under_way(kind) -> None:
    arrived = asyncio.Event()

    async def act(client: Client) -> None:
        await client.request()
        arrived.set()
        await client.gone()

    async with wire_server(act) as server:
        async with calling(server.url, kind) as post:
            call = asyncio.create_task(post())
            await arrived.wait()
        with pytest.raises(TransportError):
            await call
        await server.empty()


async def closed_meanwhile(server: WireServer, post: Post) -> None:
    await post()
    await server.empty()
    await asyncio.sleep(0.005)


@both
async def test_a_connection_closed_while_it_was_free_is_not_used(kind) -> None:
    async with wire_server(always(OK, close=True)) as server, calling(server.url, kind) as post:
        await closed_meanwhile(server, post)
        assert (await post()).status == 200
    assert (server.connections, len(server.requests)) == (2, 2)


@needs_openssl
@both
async def test_tls_trusts_what_the_environment_says(kind, tmp_path: Path, monkeypatch) -> None:
    path, context = certificate(tmp_path, "IP:127.0.0.1")
    async with wire_server(always(OK), context) as server:
        async with calling(server.url, kind) as post:
            with pytest.raises(TransportError, match=r"(?i)certificate") as caught:
                await post()
            assert not caught.value.taken
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        async with calling(server.url, kind) as post:
            for _ in range(3):
                assert (await post(b"x" * 3_000_000)).body == b"{}"
        assert len(server.requests) == 3
        assert server.connections == 1, "and those that were refused sent no request"


@needs_openssl
@both
async def test_tls_wants_the_right_name(kind, tmp_path: Path, monkeypatch) -> None:
    path, context = certificate(tmp_path, "DNS:elsewhere.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    async with wire_server(always(OK), context) as server, calling(server.url, kind) as post:
        with pytest.raises(TransportError, match=r"(?i)certificate"):
            await post()
    assert server.requests == []


@needs_openssl
@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n\r\nto the end", OK])
@both
async def test_tls_connections_that_close(kind, answer, tmp_path: Path, monkeypatch) -> None:
    path, context = certificate(tmp_path, "IP:127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    async with wire_server(always(answer, close=True), context) as server, calling(server.url, kind) as post:
        for _ in range(3):
            assert (await post()).body == answer.partition(b"\r\n\r\n")[2]
            await server.empty()
            await asyncio.sleep(0.005)
    assert len(server.requests) == 3


@both
async def test_a_plain_server_behind_https_is_no_server(kind) -> None:
    async with wire_server(always(OK)) as server:
        async with calling(server.url.replace("http:", "https:"), kind, seconds=1.0) as post:
            with pytest.raises(TransportError):
                await post()
    assert server.requests == []
