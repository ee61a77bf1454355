"""The simulated server speaks HTTP as it should, to clients that do and that do not, and keeps its log."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from unittest.mock import Mock

import orjson
import pytest
import uvloop

from peerloom.errors import ServiceError
from peerloom.services.llm.simulated.behavior import SimulatedBehavior
from peerloom.services.llm.simulated.server import http1
from peerloom.services.llm.simulated.server.app import ServerConfig, serving


def body(text: str = "hi", **fields) -> bytes:
    return orjson.dumps({"messages": [{"role": "user", "content": text}], **fields})


def post(data: bytes, headers: str = "", path: str = "/v1/chat/completions") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n{headers}\r\n"
    return head.encode() + data


class Wire:
    """A client that sees the bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def receive(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        async with asyncio.timeout(5):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines)
            data = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(first.split()[1]), headers, data

    async def closed(self) -> bool:
        async with asyncio.timeout(5):
            return await self.reader.read() == b""


@asynccontextmanager
async def connected(log: Path | None = None, **behavior) -> AsyncIterator[Wire]:
    async with serving(ServerConfig(behavior=SimulatedBehavior(**behavior), port=0, log=log)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield Wire(reader, writer)
        finally:
            writer.close()


def text_of(answer: tuple[int, dict[str, str], bytes]) -> str:
    assert answer[0] == 200, answer
    return orjson.loads(answer[2])["choices"][0]["message"]["content"]


async def test_a_completion_looks_like_openais() -> None:
    async with connected() as wire:
        wire.send(post(body()))
        status, headers, data = await wire.receive()
    reply = orjson.loads(data)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert reply["object"] == "chat.completion"
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert abs(reply["created"] - time.time()) < 5
    usage = reply["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_requests_sent_ahead_are_answered_in_order() -> None:
    async with connected() as wire:
        texts = []
        for n in range(5):
            wire.send(post(body(str(n))))
            texts.append(text_of(await wire.receive()))
    assert len(set(texts)) == 5
    for behavior in ({}, {"latency": 0.002, "latency_sigma": 1.0}):
        async with connected(**behavior) as wire:
            wire.send(b"".join(post(body(str(n))) for n in range(5)))
            assert [text_of(await wire.receive()) for _ in range(5)] == texts


async def test_far_more_sent_ahead_than_is_read_ahead() -> None:
    async with connected(latency=0.001) as wire:
        requests = [post(body(f"{n}" * 60_000)) for n in range(10, 30)]
        wire.send(b"".join(requests))
        assert len({text_of(await wire.receive()) for _ in requests}) == 20


async def test_any_cut_of_the_bytes_will_do() -> None:
    async with connected() as wire:
        wire.send(post(body()))
        whole = text_of(await wire.receive())
        for byte in post(body()):
            wire.send(bytes([byte]))
            await wire.writer.drain()
        assert text_of(await wire.receive()) == whole


def chunked(data: bytes, size: int) -> bytes:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return head + b"".join(b"%x;ext=1\r\n%b\r\n" % (len(p), p) for p in parts) + b"0\r\nTrailer: x\r\n\r\n"


async def test_bodies_may_be_chunked() -> None:
    async with connected() as wire:
        wire.send(post(body("long " * 50)))
        whole = text_of(await wire.receive())
        wire.send(chunked(body("long " * 50), 7) * 2)
        assert [text_of(await wire.receive()) for _ in range(2)] == [whole, whole]
        for byte in chunked(body("long " * 50), 100):
            wire.send(bytes([byte]))
            await wire.writer.drain()
        assert text_of(await wire.receive()) == whole


async def test_a_body_announced_is_asked_for() -> None:
    async with connected() as wire:
        head, data = post(body(), "Expect: 100-continue\r\n").split(b"\r\n\r\n")
        wire.send(head + b"\r\n\r\n")
        assert (await wire.receive())[0] == 100
        wire.send(data)
        assert (await wire.receive())[0] == 200


async def test_connections_end_when_the_client_says_so() -> None:
    for request in (post(body(), "Connection: close\r\n"), post(body()).replace(b"HTTP/1.1", b"HTTP/1.0")):
        async with connected() as wire:
            wire.send(request)
            assert (await wire.receive())[0] == 200
            assert await wire.closed()


async def test_other_paths() -> None:
    async with connected() as wire:
        wire.send(b"GET /health?x=1 HTTP/1.1\r\n\r\nGET /v1/models HTTP/1.1\r\n\r\n")
        assert (await wire.receive())[2] == b'{"status":"ok"}'
        assert orjson.loads((await wire.receive())[2])["data"][0]["id"] == "simulated"
        wire.send(b"GET /v2 HTTP/1.1\r\n\r\nGET /v1/chat/completions HTTP/1.1\r\n\r\n")
        assert (await wire.receive())[0] == 404
        assert (await wire.receive())[0] == 405


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", "JSON|json|unexpected"),
        (b"[]", "the body must be a JSON object"),
        (b'{"messages": []}', "messages must be a list"),
        (body(best_of=2), "best_of is not supported"),
    ],
)
async def test_bad_bodies_are_refused_and_the_connection_lives(data, words) -> None:
    async with connected() as wire:
        wire.send(post(data) + post(body()))
        status, _, answer = await wire.receive()
        assert status == 400
        assert any(word in orjson.loads(answer)["error"]["message"] for word in words.split("|"))
        assert (await wire.receive())[0] == 200


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / SPDY/3\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000, 431),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 70_000, 400),
    ],
)
async def test_what_is_no_http_is_refused_and_closed(data, status) -> None:
    async with connected() as wire:
        wire.send(data)
        assert (await wire.receive())[0] == status
        assert await wire.closed()


async def test_the_body_bound_holds_for_chunks_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "MAX_BODY", 1000)
    async with connected() as wire:
        wire.send(chunked(b"x" * 1200, 300))
        assert (await wire.receive())[0] == 413


def lines(log: Path) -> list[dict]:
    return [orjson.loads(line) for line in log.read_bytes().splitlines()]


async def test_the_log_has_a_line_a_call(tmp_path) -> None:
    log = tmp_path / "calls.jsonl"
    before = time.time()
    async with connected(log, latency=0.01) as wire:
        wire.send(
            post(body(), "X-Session-ID: 0-1-2/teacher\r\n") + post(body()) + post(body("ho")) + post(b"{")
        )
        for _ in range(4):
            await wire.receive()
        wire.send(b"GET /health HTTP/1.1\r\n\r\n")
        await wire.receive()
    calls = lines(log)
    assert [call["status"] for call in calls] == [200, 200, 200, 400]
    assert [call["session"] for call in calls] == ["0-1-2/teacher", "", "", ""]
    assert calls[0]["key"] == calls[1]["key"] != calls[2]["key"]
    assert all(before < call["received"] <= call["t"] <= time.time() for call in calls)
    assert calls[0]["t"] - calls[0]["received"] >= 0.009
    assert calls[0]["prompt_tokens"] == 4
    assert calls[0]["completion_tokens"] > 10
    assert calls[3]["completion_tokens"] == 0


async def test_the_log_knows_who_left_before_the_reply(tmp_path) -> None:
    log = tmp_path / "calls.jsonl"
    async with connected(log, rate_hang=1.0) as wire:
        wire.send(post(body()))
        await asyncio.sleep(0.01)
        wire.writer.close()
        await asyncio.sleep(0.01)
    async with connected(log, latency=60) as wire:
        wire.send(post(body()))
        await asyncio.sleep(0.01)
    assert [(call["status"], call["completion_tokens"]) for call in lines(log)] == [(499, 0), (499, 0)]


def test_the_log_knows_what_the_server_left_unanswered(tmp_path) -> None:
    log = tmp_path / "calls.jsonl"

    async def leave() -> None:
        async with serving(ServerConfig(behavior=SimulatedBehavior(latency=60), port=0, log=log)) as port:
            writers = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(20)]
            for writer in writers:
                writer.write(post(body()))
            await asyncio.sleep(0.05)
        for writer in writers:
            writer.close()
        await asyncio.sleep(0)

    for run in (uvloop.run, asyncio.run):
        run(leave())
    assert [call["status"] for call in lines(log)] == [499] * 40


async def test_who_has_a_reply_finds_it_in_the_log(tmp_path) -> None:
    log = tmp_path / "calls.jsonl"
    async with connected(log) as wire:
        for n in range(1, 10):
            wire.send(post(body(str(n))))
            await wire.receive()
            assert len(lines(log)) == n


async def test_a_reply_released_after_its_client_left_goes_nowhere() -> None:
    released: list[Callable[[], None] | None] = []
    connection = http1.ServerConnection(
        lambda request, connection: connection.reply(http1.Response(200, b"{}"), released.append), set()
    )
    transport = Mock(spec=asyncio.Transport)
    transport.is_closing.return_value = False
    connection.connection_made(transport)
    connection.data_received(post(body()) * 2)
    transport.is_closing.return_value = True
    connection.connection_lost(None)
    (send,) = released
    assert send is not None
    send()
    assert len(released) == 1, "what it sent ahead is not handled"
    transport.write.assert_not_called()


async def test_a_failed_request_is_counted_until_it_succeeds() -> None:
    async with connected(rate_5xx=0.5) as wire:
        statuses = []
        for _ in range(30):
            wire.send(post(body()))
            statuses.append((await wire.receive())[0])
    tries = "".join("." if status == 503 else "|" for status in statuses).split("|")
    assert len(set(tries[:-1])) == 1, "each time through it fails as often before it succeeds"


async def test_what_cannot_be_opened_is_named(tmp_path) -> None:
    async with serving(ServerConfig(port=0)) as port:
        with pytest.raises(ServiceError, match=rf"cannot listen on 127.0.0.1:{port}.*choose another --port"):
            async with serving(ServerConfig(port=port)):
                pass
    with pytest.raises(ServiceError, match="cannot write the log of calls to"):
        async with serving(ServerConfig(port=0, log=tmp_path / "missing" / "log")):
            pass


SERVER = """
import sys
from pathlib import Path
from peerloom.services.llm.simulated.behavior import SimulatedBehavior
from peerloom.services.llm.simulated.server.app import ServerConfig, run_server
run_server(ServerConfig(behavior=SimulatedBehavior(seed=4), port=int(sys.argv[1]), log=Path(sys.argv[2])))
"""


@contextmanager
def process(log: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The server as a process of its own, and the port it announces; killed in the end."""
    argv = [sys.executable, "-c", SERVER, str(port), str(log)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            assert line.startswith(b"simulated LLM at http://127.0.0.1:"), line
            assert b"latency 0 s, seed 4" in line
            yield server, int(line.split(b"/v1")[0].rpartition(b":")[2])
        finally:
            server.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_as_a_process_it_announces_its_port_and_loses_no_line(tmp_path, number) -> None:
    log = tmp_path / "calls.jsonl"
    with process(log) as (server, port):
        with socket.create_connection(("127.0.0.1", port)) as client:
            for n in range(50):
                client.sendall(post(body(str(n))))
                assert client.recv(65536).startswith(b"HTTP/1.1 200")
        server.send_signal(number)
        assert server.wait(10) == 0
    assert len(lines(log)) == 50


def test_killed_it_has_every_reply_in_the_log_and_starts_again_on_its_port(tmp_path) -> None:
    log = tmp_path / "calls.jsonl"
    port, replies = 0, 0
    with ExitStack() as clients:
        for _ in range(3):
            with process(log, port) as (server, port):
                several = [
                    clients.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(8)
                ]
                for client in several:
                    client.sendall(post(body()))
                for client in several:
                    assert client.recv(65536).startswith(b"HTTP/1.1 200")
                    replies += 1
                server.kill()
                server.wait(10)
            assert [call["status"] for call in lines(log)] == [200] * replies
