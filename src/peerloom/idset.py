"""A set of task ids that costs bits, and the partition a task belongs to.

For each file and trial there is one bitmap over the file's rows, so a million committed tasks are about
125 KB in memory and on the wire. Rows are never negative and are bounded by the input's size, so the
bitmaps start at row 0. Encoded, a bitmap is its stretches that are not empty, so that a few ids cost a few
bytes wherever in the input they are.
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

_gap = re.compile(rb"\0{8,}")  # a stretch of its own costs as much as 8 empty bytes
_not_full = re.compile(rb"[^\xff]")


def partition_of(id: TaskId, partitions: int) -> int:
    """Which of `partitions` a task's row belongs to; all trials of a row share one."""
    return (id.file + id.row) % partitions


class IdSet:
    """A set of `TaskId`, one bit each. Only grows."""

    __slots__ = ("_bits", "_count")

    def __init__(self, ids: Iterable[TaskId] = ()) -> None:
        self._bits: dict[tuple[int, int], bytearray] = {}
        self._count = 0
        self.update(ids)

    def add(self, id: TaskId) -> None:
        """Put one id in; it may be there already."""
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
        """Put several ids in."""
        for id in ids:
            self.add(id)

    def merge(self, other: "IdSet") -> None:
        """Put all ids of another set in."""
        for key, bits in other._bits.items():
            self._merge_bits(key, 0, bits)

    def merge_encoded(self, data: bytes) -> None:
        """Put all ids of an encoded set in, in time that goes by its length.

        Raises:
            CodecError: if `data` is no encoded set.
        """
        try:
            groups = _decoder.decode(data)
        except msgspec.MsgspecError as error:
            raise CodecError(f"not an encoded set of task ids: {error}") from error
        for file, trial, stretches in groups:
            for offset, bits in stretches:
                self._merge_bits((file, trial), offset, bits)

    def missing(self, file: int, start: int, stop: int, trials: int = 1) -> list[int]:
        """Those rows of a file, from `start` to before `stop`, of which not every trial is in."""
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
        """The set as MessagePack."""
        return _encoder.encode(
            [(file, trial, _stretches(bits)) for (file, trial), bits in self._bits.items()]
        )

    @classmethod
    def decode(cls, data: bytes) -> "IdSet":
        """The set in `data`, made by `encode`.

        Raises:
            CodecError: if `data` is no encoded set.
        """
        ids = cls()
        ids.merge_encoded(data)
        return ids

    def _merge_bits(self, key: tuple[int, int], offset: int, bits: bytes | bytearray) -> None:
        ours = self._bits.setdefault(key, bytearray())
        end = offset + len(bits)
        if end > len(ours):
            ours.extend(bytes(end - len(ours)))
        before = int.from_bytes(ours[offset:end], "little")
        after = before | int.from_bytes(bits, "little")
        if after != before:
            ours[offset:end] = after.to_bytes(len(bits), "little")
            self._count += (after ^ before).bit_count()


def _stretches(bits: bytearray) -> list[tuple[int, bytearray]]:
    """What is left of a bitmap without its long gaps, and where each stretch begins."""
    stretches: list[tuple[int, bytearray]] = []
    begin = 0
    for gap in _gap.finditer(bits):
        if gap.start():
            stretches.append((begin, bits[begin : gap.start()]))
        begin = gap.end()
    return [*stretches, (begin, bits[begin:])]
