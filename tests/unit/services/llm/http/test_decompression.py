"""Compressed answers, by both carriers: replies and errors, bounds, and codings that were not accepted."""

import asyncio
import gzip
import zlib
from collections.abc import Callable

import orjson
import pytest
import zstandard
from raw_server import completion, http, raw_server

from peerloom.errors import ContextExceeded
from peerloom.services.llm.base import ChatReply, ChatRequest
from peerloom.services.llm.hosted.backend import HttpBackend
from peerloom.services.llm.http import decompression as inflating
from peerloom.services.llm.http.endpoint import Endpoint
from peerloom.services.llm.providers.openai import OpenAIDialect
from peerloom.services.llm.retry import Retryable

pytestmark = pytest.mark.usefixtures("either_http")
HELLO = ChatRequest(messages=[{"role": "user", "content": "hi"}])
BODY = orjson.dumps(completion("Rain in Oslo."))
TOO_LONG = orjson.dumps({"error": {"message": "too long", "code": "context_length_exceeded"}})


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


def unsized_zstd(data: bytes) -> bytes:
    stream = zstandard.ZstdCompressor().compressobj()
    return stream.compress(data) + stream.flush()


async def ask(*answers: bytes) -> ChatReply:
    async with raw_server(*answers) as server:
        backend = HttpBackend(Endpoint(base_url=f"{server.url}", timeout=5), OpenAIDialect(), "m")
        try:
            reply = await backend.chat(HELLO, 0)
        finally:
            await backend.close()
    return reply


def coded(status: int, body: bytes, coding: str) -> bytes:
    return http(status, body, f"Content-Encoding: {coding}\r\n")


@pytest.mark.parametrize(
    ("coding", "compress"),
    [
        ("gzip", gzip.compress),
        ("GZip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("zstd", zstandard.compress),
        ("zstd", unsized_zstd),
        ("identity", bytes),
        ("utf-8", bytes),
        ("none", bytes),
        ("deflate, gzip", lambda data: gzip.compress(zlib.compress(data))),
        ("deflate\r\nContent-Encoding: gzip", lambda data: gzip.compress(zlib.compress(data))),
        ("gzip", lambda data: gzip.compress(data[:20]) + gzip.compress(data[20:])),
        ("gzip", lambda data: gzip.compress(data) + b"\0\0\0"),
        ("gzip", bytes),  # decompressed by a proxy that kept the header
    ],
)
async def test_a_compressed_reply_is_read(coding: str, compress: Callable[[bytes], bytes]) -> None:
    assert (await ask(coded(200, compress(BODY), coding))).text == "Rain in Oslo."


@pytest.mark.parametrize("status", [201, 202, 203])
async def test_a_reply_with_another_status_of_success_is_read(status: int) -> None:
    assert (await ask(coded(status, BODY, "identity"))).text == "Rain in Oslo."


async def test_a_compressed_reply_in_chunks_is_read() -> None:
    data = gzip.compress(BODY)
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (data[:7], data[7:]))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert (await ask(head + chunks + b"0\r\n\r\n")).text == "Rain in Oslo."


async def test_a_compressed_error_is_understood() -> None:
    with pytest.raises(ContextExceeded, match="HTTP 400: too long"):
        await ask(coded(400, gzip.compress(TOO_LONG), "gzip"))


@pytest.mark.parametrize(
    ("coding", "body", "words"),
    [
        ("br", b"\x0b\x02\x80", "the coding .{0,2}br.{0,2} was not accepted"),
        ("gzip", gzip.compress(BODY)[:-9], "not valid gzip data"),
        ("deflate", b"\x00nonsense", "not valid deflate data"),
        ("zstd", b"nonsense", "not valid zstd data"),
        ("gzip, " * 9, gzip.compress(BODY), "compressed 9 times"),
        ("gzip", gzip.compress(b"") * 99, "more than 16 gzip members"),
    ],
)
async def test_what_cannot_be_decompressed_is_said_and_the_status_counts(coding, body, words) -> None:
    with pytest.raises(Retryable, match=words):
        await ask(coded(200, body, coding))
    with pytest.raises(Retryable, match=f"HTTP 429: .*{words}") as caught:
        await ask(coded(429, body, coding))
    assert caught.value.limit


@pytest.mark.parametrize(
    ("coding", "compress"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate), ("zstd", unsized_zstd)],
)
async def test_a_body_is_decompressed_up_to_a_bound(coding: str, compress, monkeypatch) -> None:
    monkeypatch.setattr(inflating, "ANY_RATIO", 1 << 20)
    bomb = compress(b" " * (8 << 20))
    with pytest.raises(Retryable, match="more than 1 MB"):
        await ask(coded(200, bomb, coding))
    assert (await ask(coded(200, compress(BODY + b" " * (900 << 10)), coding))).text == "Rain in Oslo."


async def test_a_connection_is_kept_after_a_compressed_answer() -> None:
    async with raw_server(coded(200, gzip.compress(BODY), "gzip")) as server:
        backend = HttpBackend(Endpoint(base_url=server.url, timeout=5), OpenAIDialect(), "m")
        replies = [await backend.chat(HELLO, 0) for _ in range(3)]
        await backend.close()
        await asyncio.sleep(0)
    assert [reply.text for reply in replies] == ["Rain in Oslo."] * 3
    assert server.connections == 1
