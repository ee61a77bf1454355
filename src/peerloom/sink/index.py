"""A part's index: which rows of its two files count, and what they add up to.

The index is a log of records, each framed by its length and CRC-32. One record is written for each group
of rows, after the rows themselves are safe; a row that no record names was never committed. Reading stops
at the first record that is torn or damaged. The last record of a closed part sums all of them up, and a
trailer at the very end of the file says where it begins, so that nothing else of a closed part is read.
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
_TAIL_BYTES = 16 * 1024  # read at once; most closing records are shorter

Ends = tuple[int, int]
"""Where a part's data and rejected files end, in bytes."""


class Opened(msgspec.Struct, frozen=True, array_like=True, tag="opened"):
    """The first record: the version of those that follow."""

    version: int


class Group(msgspec.Struct, frozen=True, array_like=True, tag="group"):
    """A committed group: the ids of its rows, where the part's files end after it, and its sums."""

    ids: list[TaskId]
    data_end: int
    rejected_end: int
    totals: Totals


class Closed(msgspec.Struct, frozen=True, array_like=True, tag="closed"):
    """The last record of a part that nobody will write to again: all its ids, where its files end, its sums.

    `ids` is an encoded `IdSet`.
    """

    ids: bytes
    ends: Ends
    totals: Totals


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Opened | Group | Closed)


def frame(record: Opened | Group | Closed) -> bytes:
    """A record as it is written."""
    payload = _encoder.encode(record)
    return _frame.pack(len(payload), zlib.crc32(payload)) + payload


OPENING = frame(Opened(VERSION))
"""What an index begins with."""


def closing(record: Closed) -> bytes:
    """What the index of a part that is full or taken over ends with."""
    framed = frame(record)
    return framed + _trailer.pack(_MARK, VERSION, len(framed))


def sum_up(groups: Iterable[Group], ends: Ends) -> Closed:
    """The closing record of a part with these groups."""
    ids, totals = IdSet(), Totals()
    for group in groups:
        ids.update(group.ids)
        totals.add(group.totals)
    return Closed(ids.encode(), ends, totals)


def read_closed(path: Path, sizes: Ends) -> Closed | None:
    """The closing record of an index, if the part is closed and its files have the sizes that it names.

    Raises:
        FileNotFoundError: if there is no index.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        tail = os.pread(fd, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        if len(tail) < _trailer.size:
            return None
        mark, version, length = _trailer.unpack_from(tail, len(tail) - _trailer.size)
        wanted = length + _trailer.size
        if (mark, version) != (_MARK, VERSION) or wanted > size:
            return None
        if wanted > len(tail):
            tail = os.pread(fd, wanted, size - wanted)
    finally:
        os.close(fd)
    record, end = _read_record(tail, len(tail) - wanted)
    if isinstance(record, Closed) and record.ends == sizes and end == len(tail) - _trailer.size:
        return record
    return None


class Prefix(msgspec.Struct, frozen=True):
    """The good part of an index: its groups, and its length in bytes without a closing record."""

    groups: list[Group]
    length: int

    @property
    def ends(self) -> Ends:
        """Where the part's data and rejected files end."""
        return (self.groups[-1].data_end, self.groups[-1].rejected_end) if self.groups else (0, 0)


def read_prefix(data: bytes, sizes: Ends, name: str) -> Prefix:
    """What counts of an index, group by group, given the sizes of the part's data and rejected files.

    A group that ends beyond its files is cut with all that follow.

    Raises:
        RunDirError: if the index was written by a release that this one cannot read.
    """
    groups: list[Group] = []
    position = 0
    while True:
        record, after = _read_record(data, position)
        if isinstance(record, Opened):
            if record.version != VERSION:
                raise RunDirError(
                    f"{name} is of index version {record.version}, but this release reads {VERSION}: "
                    "go on with the release that began the run, or use another --run-dir"
                )
        elif not isinstance(record, Group) or record.data_end > sizes[0] or record.rejected_end > sizes[1]:
            return Prefix(groups, position)
        else:
            groups.append(record)
        position = after


def _read_record(data: bytes, position: int) -> tuple[Opened | Group | Closed | None, int]:
    """The record at a position and where it ends; None if there is no good one."""
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
