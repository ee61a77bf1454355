"""A set of task ids that costs bits, and the partition a task belongs to.

For each file and trial there is one bitmap over the file's rows, so a million committed tasks are about
125 KB in memory and on the wire. Rows are never negative and are bounded by the input's size, so the
bitmaps start at row 0.
"""

from collections.abc import Iterable, Iterator

import msgspec

from peerloom.errors import CodecError
from peerloom.task import TaskId

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[tuple[int, int, bytes]])


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
        for key, theirs in other._bits.items():
            ours = self._bits.get(key, bytearray())
            before = int.from_bytes(ours, "little")
            after = before | int.from_bytes(theirs, "little")
            self._count += after.bit_count() - before.bit_count()
            self._bits[key] = bytearray(after.to_bytes(max(len(ours), len(theirs)), "little"))

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
        return _encoder.encode([(file, trial, bits) for (file, trial), bits in self._bits.items()])

    @classmethod
    def decode(cls, data: bytes) -> "IdSet":
        """The set in `data`, made by `encode`.

        Raises:
            CodecError: if `data` is no encoded set.
        """
        try:
            groups = _decoder.decode(data)
        except msgspec.MsgspecError as error:
            raise CodecError(f"not an encoded set of task ids: {error}") from error
        ids = cls()
        for file, trial, bits in groups:
            ids._bits[file, trial] = bytearray(bits)
            ids._count += int.from_bytes(bits, "little").bit_count()
        return ids
