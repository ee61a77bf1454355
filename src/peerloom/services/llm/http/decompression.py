"""Decompress the bodies of responses, up to a bound on their size and compression ratio."""

import io
import zlib
from collections.abc import Sequence

import orjson
import zstandard

from peerloom.services.llm.http.base import HttpResponse

ACCEPTED = "identity, gzip;q=0.5, deflate;q=0.5, zstd;q=0.5"
"""The value of Accept-Encoding. Plain bodies are preferred, since they cost the least CPU time."""

MOST = 64 << 20
"""The maximum size of a decompressed body, in bytes."""
ANY_RATIO = 4 << 20
"""The size of a decompressed body up to which any compression ratio is accepted, in bytes."""
RATIO = 200
"""The maximum compression ratio of larger bodies."""

_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_GZIP_BEGINS = b"\x1f\x8b"
_PLAIN = (b"{", b"[")
_MEMBERS = 16  # maximum members of a gzip file; each costs a copy of the rest
_CODINGS = 4  # maximum nested codings
_NO_CODING = ("", "identity", "none", "utf-8")  # the last two are not codings, but sent with plain bodies
_HEADER = b"content-encoding"
_WINDOW = 8 << 20  # maximum zstd window in bytes, as recommended by RFC 8878


class _DecompressionError(Exception):
    pass


def decompressed(response: HttpResponse) -> HttpResponse:
    """Return a response with its body decompressed, as its headers say.

    A body that cannot be decompressed is replaced by an error message in JSON, so that the status of the
    response still counts.
    """
    for name, _ in response.fields:
        if len(name) == len(_HEADER) and name.lower() == _HEADER:
            break
    else:
        return response
    values = [value for name, value in response.fields if name.lower() == _HEADER]
    codings = [coding.strip().lower() for coding in b",".join(values).decode(errors="replace").split(",")]
    return HttpResponse(response.status, response.fields, _plain(response.body, codings))


def _plain(body: bytes, codings: Sequence[str]) -> bytes:
    applied = [coding for coding in reversed(codings) if coding not in _NO_CODING]
    if not body or not applied:
        return body
    most = min(MOST, max(ANY_RATIO, RATIO * len(body)))
    try:
        if len(applied) > _CODINGS:
            raise _DecompressionError(f"it is compressed {len(applied)} times")
        for coding in applied:
            body = _undone(body, coding, most)
    except _DecompressionError as error:
        why = f"cannot decompress the body: {error}"
        return orjson.dumps({"error": {"message": why, "type": "content_encoding"}})
    return body


def _undone(body: bytes, coding: str, most: int) -> bytes:
    if coding not in ("gzip", "x-gzip", "deflate", "zstd"):
        raise _DecompressionError(
            f"the coding {coding[:40]!r} was not accepted; have the server or proxy send gzip, deflate, "
            "zstd or no compression"
        )
    try:
        if coding == "zstd":
            return _unzstd(body, most)
        if coding != "deflate":
            return _inflate(body, _GZIP, most)
        try:
            return _inflate(body, _ZLIB, most)
        except zlib.error:
            return _inflate(body, _RAW, most)  # some servers leave the zlib header out
    except (zlib.error, zstandard.ZstdError) as error:
        if body.startswith(_PLAIN):  # a proxy decompressed it and kept the header
            return body
        raise _DecompressionError(f"it is not valid {coding} data ({error})") from error


def _inflate(body: bytes, kind: int, most: int) -> bytes:
    """Decompress zlib's formats; a gzip body may have several members, followed by padding."""
    parts: list[bytes] = []
    for _ in range(_MEMBERS):
        stream = zlib.decompressobj(kind)
        parts.append(_bounded(stream.decompress(body, most + 1), most))
        if not stream.eof:
            raise zlib.error("it is cut off")
        most -= len(parts[-1])
        body = stream.unused_data
        if kind != _GZIP or not body.startswith(_GZIP_BEGINS):
            return b"".join(parts)
    raise _DecompressionError(f"it has more than {_MEMBERS} gzip members")


def _unzstd(body: bytes, most: int) -> bytes:
    """Decompress zstd frames; a truncated stream is not detected."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    with decompressor.stream_reader(io.BytesIO(body), read_across_frames=True) as reader:
        return _bounded(reader.read(most + 1), most)


def _bounded(data: bytes, most: int) -> bytes:
    if len(data) > most:
        raise _DecompressionError(f"it has more than {most >> 20} MB, too much for its compressed size")
    return data
