"""Read and write the index of a part: which rows of its two files are committed, and their totals.

The index is a log of records, each framed by its length and CRC-32. One record is written for each group of
rows, after the rows themselves are durable; a row that no record names was never committed. Reading stops at
the first incomplete or damaged record. The last record of a closed part summarizes all others, and a trailer
at the very end of the file locates it, so that readers of a closed part read nothing else.
"""

import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from peerloom.errors import RunDirError
from peerloom.idset import IdSet
from peerloom.sink.totals import Totals
from peerloom.task import TaskId

VERSION = 2

_frame = struct.Struct("<II")
_trailer = struct.Struct("<4sII")  # mark, version, length of the framed record before it
_MARK = b"\nend"

Ends = tuple[int, int]
"""The lengths in bytes of a part's data and rejected files."""


class Opened(msgspec.Struct, frozen=True, array_like=True, tag="opened"):
    """The first record, with the format version of the records that follow."""

    version: int


class CommittedGroup(msgspec.Struct, frozen=True, array_like=True, tag="group"):
    """A committed group: the ids of its rows, the lengths of the part's files after it, and its totals."""

    ids: list[TaskId]
    data_end: int
    rejected_end: int
    totals: Totals


class Closed(msgspec.Struct, frozen=True, array_like=True, tag="closed-2"):
    """The last record of a part that is complete: all its ids, the lengths of its files, and its totals.

    `ids` is an encoded `IdSet`.
    """

    ids: bytes
    ends: Ends
    totals: Totals


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Opened | CommittedGroup | Closed)


def frame(record: Opened | CommittedGroup | Closed) -> bytes:
    """Return the bytes of a record with its frame."""
    payload = _encoder.encode(record)
    return _frame.pack(len(payload), zlib.crc32(payload)) + payload


OPENING = frame(Opened(VERSION))
"""The first bytes of every index."""


def closing(record: Closed) -> bytes:
    """Return the last bytes of the index of a closed part: the framed record and the trailer."""
    framed = frame(record)
    return framed + _trailer.pack(_MARK, VERSION, len(framed))


def sum_up(groups: Iterable[CommittedGroup], ends: Ends) -> Closed:
    """Return the closing record of a part with these groups."""
    ids, totals = IdSet(), Totals()
    for group in groups:
        ids.update(group.ids)
        totals.add(group.totals)
    return Closed(ids.encode(), ends, totals)


def read_closed(path: Path, sizes: Ends) -> Closed | None:
    """Return the closing record of an index if the part is closed and its files have the recorded sizes."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size < _trailer.size:
            return None
        file.seek(size - _trailer.size)
        mark, version, length = _trailer.unpack(file.read(_trailer.size))
        start = size - _trailer.size - length
        if (mark, version) != (_MARK, VERSION) or start < 0:
            return None
        file.seek(start)
        data = file.read(length)
    record, end = _read_record(data, 0)
    return record if isinstance(record, Closed) and (record.ends, end) == (sizes, length) else None


class Prefix(msgspec.Struct, frozen=True):
    """The valid prefix of an index: its groups, and its length in bytes without a closing record."""

    groups: list[CommittedGroup]
    length: int

    @property
    def ends(self) -> Ends:
        """The committed lengths of the part's data and rejected files."""
        return (self.groups[-1].data_end, self.groups[-1].rejected_end) if self.groups else (0, 0)


def read_prefix(data: bytes, sizes: Ends, name: str) -> Prefix:
    """Return the valid prefix of an index, given the sizes of the part's data and rejected files.

    A group that ends beyond its files, and all groups after it, are left out.

    Raises:
        RunDirError: if the index was written in a version that this release cannot read.
    """
    groups: list[CommittedGroup] = []
    position = 0
    while True:
        record, after = _read_record(data, position)
        if isinstance(record, Opened):
            if record.version != VERSION:
                raise RunDirError(
                    f"{name} is of index version {record.version}, but this release reads {VERSION}: "
                    "resume it with the release that started the run, or use another --run-dir"
                )
        elif (
            not isinstance(record, CommittedGroup)
            or record.data_end > sizes[0]
            or record.rejected_end > sizes[1]
        ):
            return Prefix(groups, position)
        else:
            groups.append(record)
        position = after


def _read_record(data: bytes, position: int) -> tuple[Opened | CommittedGroup | Closed | None, int]:
    """Return the record at a position and the position after it; None if it is not intact."""
    start = position + _frame.size
    if start > len(data):
        return None, position
    length, checksum = _frame.unpack_from(data, position)
    payload = data[start : start + length]
    if len(payload) < length or zlib.crc32(payload) != checksum:
        return None, position
    try:
        return _decoder.decode(payload), start + length
    except msgspec.MsgspecError:
        return None, position
