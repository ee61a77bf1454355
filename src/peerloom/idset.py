"""Store sets of task ids as bitmaps, and compute the partition of a task.

There is one bitmap over a file's rows for each file and trial, so a million committed tasks take about 125 KB
in memory and in a message. Rows are never negative and are bounded by the input's size, so the bitmaps start
at row 0. The encoding of a bitmap omits long gaps, so a few ids take a few bytes wherever they are in the
input.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec

from peerloom.errors import CodecError
from peerloom.task import TaskId

_Offset = Annotated[int, msgspec.Meta(ge=0)]

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[tuple[int, int, list[tuple[_Offset, bytes]]]])

_gap = re.compile(rb"\0{8,}")  # starting a new run of bytes costs as much as 8 empty bytes
_not_full = re.compile(rb"[^\xff]")


def partition_of(id: TaskId, partitions: int) -> int:
    """Return the partition of a task's row, from 0 to `partitions - 1`; all trials of a row share one."""
    return (id.file + id.row) % partitions


class IdSet:
    """A set of `TaskId`, one bit each, that only grows."""

    __slots__ = ("_bits", "_count")

    def __init__(self, ids: Iterable[TaskId] = ()) -> None:
        self._bits: dict[tuple[int, int], bytearray] = {}
        self._count = 0
        self.update(ids)

    def add(self, id: TaskId) -> None:
        """Add one id, unless it is present."""
        file, row, trial = id
        bits = self._bits.get((file, trial))
        if bits is None:
            bits = self._bits[file, trial] = bytearray()
        byte, mask = row >> 3, 1 << (row & 7)
        if byte >= len(bits):
            bits.extend(bytes(byte + 1 - len(bits)))
        if not bits[byte] & mask:
            bits[byte] |= mask
            self._count += 1

    def update(self, ids: Iterable[TaskId]) -> None:
        """Add several ids."""
        for id in ids:
            self.add(id)

    def merge(self, other: "IdSet") -> None:
        """Add all ids of another set."""
        for key, bits in other._bits.items():
            self._merge_bits(key, 0, bits)

    def merge_encoded(self, data: bytes) -> None:
        """Add all ids of an encoded set, in time proportional to its length.

        Raises:
            CodecError: if `data` is not an encoded set.
        """
        try:
            groups = _decoder.decode(data)
        except msgspec.MsgspecError as error:
            raise CodecError(f"not an encoded set of task ids: {error}") from error
        for file, trial, runs in groups:
            for offset, bits in runs:
                self._merge_bits((file, trial), offset, bits)

    def missing(self, file: int, start: int, stop: int, trials: int = 1) -> list[int]:
        """Return the rows of a file in `range(start, stop)` that lack at least one trial."""
        low, high = start >> 3, (stop + 7) >> 3
        full = (1 << 8 * (high - low)) - 1
        for trial in range(trials):
            full &= int.from_bytes(self._bits.get((file, trial), b"")[low:high], "little")
        done = full.to_bytes(high - low, "little")
        return [
            row
            for byte in (found.start() for found in _not_full.finditer(done))
            for bit in range(8)
            if not done[byte] >> bit & 1 and start <= (row := (low + byte) * 8 + bit) < stop
        ]

    def __contains__(self, id: TaskId) -> bool:
        file, row, trial = id
        bits = self._bits.get((file, trial))
        return bits is not None and row >> 3 < len(bits) and bool(bits[row >> 3] & 1 << (row & 7))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[TaskId]:
        for (file, trial), bits in self._bits.items():
            for byte, value in enumerate(bits):
                for bit in range(8) if value else ():
                    if value >> bit & 1:
                        yield TaskId(file, byte * 8 + bit, trial)

    def __repr__(self) -> str:
        return f"<IdSet of {self._count}>"

    def encode(self) -> bytes:
        """Return the set as MessagePack."""
        return _encoder.encode([(file, trial, _runs(bits)) for (file, trial), bits in self._bits.items()])

    @classmethod
    def decode(cls, data: bytes) -> "IdSet":
        """Return the set that `encode` wrote.

        Raises:
            CodecError: if `data` is not an encoded set.
        """
        ids = cls()
        ids.merge_encoded(data)
        return ids

    def _merge_bits(self, key: tuple[int, int], offset: int, bits: bytes | bytearray) -> None:
        bitmap = self._bits.setdefault(key, bytearray())
        end = offset + len(bits)
        if end > len(bitmap):
            bitmap.extend(bytes(end - len(bitmap)))
        before = int.from_bytes(bitmap[offset:end], "little")
        after = before | int.from_bytes(bits, "little")
        if after != before:
            bitmap[offset:end] = after.to_bytes(len(bits), "little")
            self._count += (after ^ before).bit_count()


def _runs(bits: bytearray) -> list[tuple[int, bytearray]]:
    """Split a bitmap at its long gaps, and return each run of bytes with its offset."""
    runs: list[tuple[int, bytearray]] = []
    begin = 0
    for gap in _gap.finditer(bits):
        if gap.start():
            runs.append((begin, bits[begin : gap.start()]))
        begin = gap.end()
    return [*runs, (begin, bits[begin:])]
