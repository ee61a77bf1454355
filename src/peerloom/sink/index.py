"""A part's index: which rows of its two files count, and what they add up to.

The index is a log of records, each framed by its length and CRC-32. One record is written for each group
of rows, after the rows themselves are safe; a row that no record names was never committed. Reading stops
at the first record that is torn or damaged.
"""

import struct
import zlib

import msgspec

from peerloom.errors import RunDirError
from peerloom.sink.totals import Totals
from peerloom.task import TaskId

VERSION = 1

_frame = struct.Struct("<II")


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
    """The last record of a part that nobody will write to again."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Opened | Group | Closed)


def frame(record: Opened | Group | Closed) -> bytes:
    """A record as it is written."""
    payload = _encoder.encode(record)
    return _frame.pack(len(payload), zlib.crc32(payload)) + payload


OPENING = frame(Opened(VERSION))
"""What an index begins with."""

CLOSING = frame(Closed())
"""What the index of a part that is full or taken over ends with."""


class Prefix(msgspec.Struct, frozen=True):
    """The good part of an index: its groups, its length in bytes, whether it is closed and all good."""

    groups: list[Group]
    length: int
    closed: bool

    @property
    def ends(self) -> tuple[int, int]:
        """Where the part's data and rejected files end."""
        return (self.groups[-1].data_end, self.groups[-1].rejected_end) if self.groups else (0, 0)


def read_prefix(data: bytes, sizes: tuple[int, int], name: str) -> Prefix:
    """What counts of an index, given the sizes of the part's data and rejected files.

    A group that ends beyond its files is cut with all that follow.

    Raises:
        RunDirError: if the index was written by a release that this one cannot read.
    """
    groups: list[Group] = []
    position, closed = 0, False
    while not closed:
        record, after = _read_record(data, position)
        if isinstance(record, Opened):
            if record.version != VERSION:
                raise RunDirError(
                    f"{name} is of index version {record.version}, but this release reads {VERSION}: "
                    "go on with the release that began the run, or use another --run-dir"
                )
        elif isinstance(record, Group):
            if record.data_end > sizes[0] or record.rejected_end > sizes[1]:
                break
            groups.append(record)
        elif record is None:
            break
        else:
            closed = True
        position = after
    return Prefix(groups, position, closed and position == len(data))


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
