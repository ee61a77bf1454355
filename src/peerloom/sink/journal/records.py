"""Encode and decode the records of the journal.

A record is a header of fixed size, a payload in MessagePack, and a CRC-32 of both. The header begins with a
marker that no UTF-8 text contains, then has the payload's length twice, once inverted: a reader skips
unwanted records by the header alone, and detects a damaged length. The last byte of the marker is the version
of the format.

There are three kinds:

    TURN  the turns by which a copy reached its hop, from the previous hop or an earlier one
    CALL  a finished call of the unfinished turn that follows the hop
    BASE  all turns up to the hop, and calls of the next turn: the start of an attempt of a recovered task

Equal calls are separate records, distinguished by a number; a copy of a record has the same number.
"""

import os
import struct
import zlib
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple, TypeVar

import msgspec

from peerloom.errors import CodecError
from peerloom.task import Header, SavedCall, TaskId, Turn

T = TypeVar("T")

TURN, CALL, BASE = 1, 2, 3

MARKER = b"\xffPJ\x02"
LENGTH_MASK = 0xFFFF_FFFF
HEAD = struct.Struct("<4sIIBIQIQIQ")
"""Marker, payload's length, inverted length, kind, file, row, trial, attempt, hop, mark."""

OVERHEAD = HEAD.size + 4
"""The bytes of a record without its payload."""

_encode = msgspec.msgpack.Encoder().encode
_turns_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])
_call_decoder = msgspec.msgpack.Decoder(SavedCall)
_base_decoder = msgspec.msgpack.Decoder(tuple[list[msgspec.Raw], list[SavedCall]])
_turn_decoder = msgspec.msgpack.Decoder(Turn)

_call_numbers = count(int.from_bytes(os.urandom(7), "little"))


class Record(NamedTuple):
    """A record found in a segment: the fields of its header, its position, and its checksum.

    `mark` distinguishes equal calls; in a BASE it is the number of calls, in a TURN the number of hops before
    the last. `crc` is the checksum at its end.
    """

    kind: int
    id: TaskId
    attempt: int
    hop: int
    mark: int
    start: int
    end: int
    crc: int


def turn_record(header: Header, raw_turns: Sequence[msgspec.Raw], hops: int = 1) -> bytes:
    """Return the record of one step, or of several that one peer took."""
    return _record(TURN, header, hops - 1, _encode(raw_turns))


def call_record(header: Header, call: SavedCall) -> bytes:
    """Return the record of a finished call of an unfinished turn; equal calls get different records."""
    return _record(CALL, header, next(_call_numbers), _encode(call))


def base_record(header: Header, raw_turns: Sequence[msgspec.Raw], calls: Sequence[SavedCall]) -> bytes:
    """Return the record of the start of an attempt that continues an earlier one."""
    return _record(BASE, header, len(calls), _encode((raw_turns, calls)))


def is_intact(record: bytes | memoryview) -> bool:
    """Return whether a record ends with its correct CRC."""
    return zlib.crc32(record[:-4]) == int.from_bytes(record[-4:], "little")


def turns_of(record: bytes) -> list[msgspec.Raw]:
    """Return the turns of a TURN."""
    return _checked(_decode(_turns_decoder, _payload(record)))


def call_of(record: bytes) -> SavedCall:
    """Return the call of a CALL."""
    return _decode(_call_decoder, _payload(record))


def base_of(record: bytes) -> tuple[list[msgspec.Raw], list[SavedCall]]:
    """Return the turns and calls of a BASE."""
    raw_turns, calls = _decode(_base_decoder, _payload(record))
    return _checked(raw_turns), calls


def _record(kind: int, header: Header, mark: int, payload: bytes) -> bytes:
    (file, row, trial), attempt, hop = header
    length = len(payload)
    head = HEAD.pack(MARKER, length, length ^ LENGTH_MASK, kind, file, row, trial, attempt, hop, mark)
    crc = zlib.crc32(payload, zlib.crc32(head))
    return b"".join((head, payload, crc.to_bytes(4, "little")))


def _payload(record: bytes) -> memoryview:
    return memoryview(record)[HEAD.size : -4]


def _checked(raw_turns: list[msgspec.Raw]) -> list[msgspec.Raw]:
    for raw in raw_turns:
        _decode(_turn_decoder, raw)
    return raw_turns


def _decode(decoder: "msgspec.msgpack.Decoder[T]", data: msgspec.Raw | memoryview) -> T:
    try:
        return decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise CodecError(f"not a record of the journal: {error}") from error
