"""Records of the journal, as bytes.

A record is a head of fixed size, a payload in MessagePack, and a CRC-32 of both. The head begins with a
marker that no UTF-8 text contains, then has the payload's length twice, once inverted: a reader steps over
records it does not want by the head alone, and does not trust a damaged length. The last byte of the marker
is the version of the format.

Three kinds:

    TURN  the turns by which a copy came to its hop, from the hop before or from an earlier one
    CALL  a finished call of the unfinished turn that follows the hop
    BASE  all turns up to the hop, and calls of the next turn: where an attempt begins that was recalled

Equal calls are records of their own, told apart by a number; a copy of a record has the number too.
"""

import os
import struct
import zlib
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import msgspec

from peerloom.errors import CodecError
from peerloom.task import Header, SavedCall, TaskId, Turn

TURN, CALL, BASE = 1, 2, 3

MARKER = b"\xffPJ\x01"
LENGTH_MASK = 0xFFFF_FFFF
HEAD = struct.Struct("<4sIIBIQIQIQ")
"""Marker, payload's length, the same inverted, kind, file, row, trial, attempt, hop, mark."""

OVERHEAD = HEAD.size + 4
"""Bytes of a record besides its payload."""

_encode = msgspec.msgpack.Encoder().encode
_turns_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])
_call_decoder = msgspec.msgpack.Decoder(SavedCall)
_base_decoder = msgspec.msgpack.Decoder(tuple[list[msgspec.Raw], list[SavedCall]])
_turn_decoder = msgspec.msgpack.Decoder(Turn)

_call_numbers = count(int.from_bytes(os.urandom(7), "little"))


class Record(NamedTuple):
    """A record found in a segment: what its head says, and where it is.

    `mark` tells equal calls apart; in a BASE it is the number of calls, and in a TURN that of the hops before
    the last. `crc` is what it ends with.
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
    """The record of one step, or of several that one peer took.

    Args:
        header: of the copy after them.
        raw_turns: the turns that they added, encoded.
        hops: how many they are.
    """
    return _record(TURN, header, hops - 1, _encode(raw_turns))


def call_record(header: Header, call: SavedCall) -> bytes:
    """The record of a finished call of an unfinished turn. Each is a call of its own, also if equal.

    Args:
        header: of the copy that is acting; its hop is the last one finished.
        call: the call.
    """
    return _record(CALL, header, next(_call_numbers), _encode(call))


def base_record(header: Header, raw_turns: Sequence[msgspec.Raw], calls: Sequence[SavedCall]) -> bytes:
    """The record of where an attempt begins that goes on from what an earlier one had done.

    Args:
        header: of the copy that is admitted.
        raw_turns: all its turns, encoded.
        calls: finished calls of the turn that comes next.
    """
    return _record(BASE, header, len(calls), _encode((raw_turns, calls)))


def is_whole(record: bytes | memoryview) -> bool:
    """Whether a record ends with its own CRC."""
    return zlib.crc32(record[:-4]) == int.from_bytes(record[-4:], "little")


def turns_of(record: bytes) -> list[msgspec.Raw]:
    """The turns of a TURN.

    Raises:
        CodecError: if there are none in it.
    """
    try:
        return _checked(_turns_decoder.decode(_payload(record)))
    except msgspec.MsgspecError as error:
        raise _wrong(error) from error


def call_of(record: bytes) -> SavedCall:
    """The call of a CALL.

    Raises:
        CodecError: if there is none in it.
    """
    try:
        return _call_decoder.decode(_payload(record))
    except msgspec.MsgspecError as error:
        raise _wrong(error) from error


def base_of(record: bytes) -> tuple[list[msgspec.Raw], list[SavedCall]]:
    """The turns and calls of a BASE.

    Raises:
        CodecError: if they are not in it.
    """
    try:
        raw_turns, calls = _base_decoder.decode(_payload(record))
        return _checked(raw_turns), calls
    except msgspec.MsgspecError as error:
        raise _wrong(error) from error


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
        _turn_decoder.decode(raw)
    return raw_turns


def _wrong(error: Exception) -> CodecError:
    return CodecError(f"not a record of the journal: {error}")
