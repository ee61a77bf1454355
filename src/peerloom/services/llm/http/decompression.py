"""Decompresses the bodies of answers, up to a bound on their size and ratio."""

import io
import zlib
from collections.abc import Sequence

import orjson
import zstandard

from peerloom.services.llm.http.base import Answer

ACCEPTED = "identity, gzip;q=0.5, deflate;q=0.5, zstd;q=0.5"
"""The value of Accept-Encoding. Plain bodies are preferred, since they cost the least CPU time."""

MOST = 64 << 20
"""Bytes of a decompressed body."""
ANY_RATIO = 4 << 20
"""Bytes of a decompressed body up to which the compressed one may be of any size."""
RATIO = 200
"""Above `ANY_RATIO`, times that a decompressed body may be as long as the compressed one."""

_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_GZIP_BEGINS = b"\x1f\x8b"
_PLAIN = (b"{", b"[")
_MEMBERS = 16  # of a gzip file; each costs a copy of the rest
_CODINGS = 4  # one on top of the other
_NO_CODING = ("", "identity", "none", "utf-8")  # the last two are no codings, but sent with plain bodies
_HEADER = b"content-encoding"
_WINDOW = 8 << 20  # bytes of memory for a zstd window, the most that RFC 8878 recommends to support


class _CannotInflateError(Exception):
    pass


def inflated(answer: Answer) -> Answer:
    """Decompress the body of an answer whose headers say that it is compressed.

    The body of an answer that cannot be decompressed becomes an error message in JSON, so that its status
    still counts.
    """
    for name, _ in answer.fields:
        if len(name) == len(_HEADER) and name.lower() == _HEADER:
            break
    else:
        return answer
    values = [value for name, value in answer.fields if name.lower() == _HEADER]
    codings = [coding.strip().lower() for coding in b",".join(values).decode(errors="replace").split(",")]
    return Answer(answer.status, answer.fields, _plain(answer.body, codings))


def _plain(body: bytes, codings: Sequence[str]) -> bytes:
    applied = [coding for coding in reversed(codings) if coding not in _NO_CODING]
    if not body or not applied:
        return body
    most = min(MOST, max(ANY_RATIO, RATIO * len(body)))
    try:
        if len(applied) > _CODINGS:
            raise _CannotInflateError(f"it is compressed {len(applied)} times")
        for coding in applied:
            body = _undone(body, coding, most)
    except _CannotInflateError as error:
        why = f"cannot decompress the body: {error}"
        return orjson.dumps({"error": {"message": why, "type": "content_encoding"}})
    return body


def _undone(body: bytes, coding: str, most: int) -> bytes:
    if coding not in ("gzip", "x-gzip", "deflate", "zstd"):
        raise _CannotInflateError(
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
        if body.startswith(_PLAIN):  # by a proxy that decompressed it and kept the header
            return body
        raise _CannotInflateError(f"it is not valid {coding} data ({error})") from error


def _inflate(body: bytes, kind: int, most: int) -> bytes:
    """Decompress zlib's formats; a gzip body may have several members, and padding behind them."""
    made: list[bytes] = []
    for _ in range(_MEMBERS):
        stream = zlib.decompressobj(kind)
        made.append(_bounded(stream.decompress(body, most + 1), most))
        if not stream.eof:
            raise zlib.error("it is cut off")
        most -= len(made[-1])
        body = stream.unused_data
        if kind != _GZIP or not body.startswith(_GZIP_BEGINS):
            return b"".join(made)
    raise _CannotInflateError(f"it has more than {_MEMBERS} gzip members")


def _unzstd(body: bytes, most: int) -> bytes:
    """Decompress frames of zstd. A stream that breaks off has no end of file to be noticed by."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    with decompressor.stream_reader(io.BytesIO(body), read_across_frames=True) as reader:
        return _bounded(reader.read(most + 1), most)


def _bounded(made: bytes, most: int) -> bytes:
    if len(made) > most:
        raise _CannotInflateError(f"it has more than {most >> 20} MB, too much for its compressed size")
    return made
