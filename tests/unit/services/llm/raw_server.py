"""An HTTP server that answers each request as a test says, down to the bytes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson

Act = Callable[[asyncio.StreamWriter], Awaitable[None]]


def completion(text: str = "hello", **choice: Any) -> dict[str, Any]:
    """A chat completion that says `text`."""
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    message = {"role": "assistant", "content": text}
    return {
        "model": "m",
        "choices": [{"message": message, "finish_reason": "stop", **choice}],
        "usage": usage,
    }


def http(status: int, body: Any, headers: str = "", kind: str = "application/json") -> bytes:
    """A whole response; `headers` are lines ended by CRLF."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n{headers}\r\n"
    return head.encode() + data


def error(status: int, message: str, headers: str = "", **fields: Any) -> bytes:
    """An error as OpenAI words it."""
    return http(status, {"error": {"message": message, **fields}}, headers)


async def reset(writer: asyncio.StreamWriter) -> None:
    """Break the connection off without a word."""
    writer.transport.abort()


async def half(writer: asyncio.StreamWriter) -> None:
    """Promise a body, send half of it, and close."""
    writer.write(http(200, completion())[:-40])
    writer.close()


async def hang(writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


async def slow(writer: asyncio.StreamWriter) -> None:
    """Send the head at once, and the body never quite."""
    writer.write(http(200, completion())[:-1])
    await asyncio.Event().wait()


class RawServer:
    """Answers the n-th request with the n-th of `script` (bytes, or something to do), then with the last."""

    def __init__(self, script: tuple[bytes | Act, ...]) -> None:
        self.script = script
        self.heads: list[str] = []
        self.bodies: list[Any] = []
        self.connections = 0
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lengths = [line for line in head.lower().splitlines() if line.startswith("content-length:")]
                body = await reader.readexactly(int(lengths[0].split(":")[1])) if lengths else b""
                act = self.script[min(len(self.heads), len(self.script) - 1)]
                self.heads.append(head)
                self.bodies.append(orjson.loads(body) if body else None)
                if isinstance(act, bytes):
                    writer.write(act)
                else:
                    await act(writer)


@asynccontextmanager
async def raw_server(*script: bytes | Act, port: int = 0) -> AsyncIterator[RawServer]:
    """A `RawServer` that listens inside the block."""
    raw = RawServer(script)
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        tasks.add(asyncio.ensure_future(serve(reader, writer)))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await raw.handle(reader, writer)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    raw.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield raw
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        for writer in writers:  # a task that was cancelled before it began closes nothing
            writer.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
