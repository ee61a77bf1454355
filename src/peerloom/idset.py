"""Store sets of task ids as bitmaps, and compute the partition of a task.

There is one Roaring bitmap over a file's rows for each file and trial, so a million committed tasks take at
most 125 KB in memory and in a message, and a few ids take a few bytes wherever they are in the input.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec
from pyroaring import BitMap64

from peerloom.errors import CodecError
from peerloom.task import TaskId

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[tuple[int, int, bytes]])


def partition_of(id: TaskId, partitions: int) -> int:
    """Return the partition of a task's row, from 0 to `partitions - 1`; all trials of a row share one."""
    return (id.file + id.row) % partitions


class IdSet:
    """A set of `TaskId` that only grows."""

    __slots__ = ("_rows",)

    def __init__(self, ids: Iterable[TaskId] = ()) -> None:
        self._rows: defaultdict[tuple[int, int], BitMap64] = defaultdict(BitMap64)
        self.update(ids)

    def add(self, id: TaskId) -> None:
        """Add one id, unless it is present."""
        file, row, trial = id
        self._rows[file, trial].add(row)

    def update(self, ids: Iterable[TaskId]) -> None:
        """Add several ids."""
        for id in ids:
            self.add(id)

    def merge(self, other: "IdSet") -> None:
        """Add all ids of another set."""
        for key, rows in other._rows.items():
            self._rows[key].update(rows)

    def merge_encoded(self, data: bytes) -> None:
        """Add all ids of an encoded set, in time proportional to its length.

        Raises:
            CodecError: if `data` is not an encoded set.
        """
        try:
            groups = [
                ((file, trial), BitMap64.deserialize(rows)) for file, trial, rows in _decoder.decode(data)
            ]
        except (msgspec.MsgspecError, ValueError, IndexError) as error:
            raise CodecError(f"not an encoded set of task ids: {error}") from error
        for key, rows in groups:
            self._rows[key].update(rows)

    def missing(self, file: int, start: int, stop: int, trials: int = 1) -> list[int]:
        """Return the rows of a file in `range(start, stop)` that lack at least one trial."""
        wanted = BitMap64(range(start, stop))
        done = wanted.intersection(*(self._rows.get((file, trial), BitMap64()) for trial in range(trials)))
        return list(wanted - done)

    def __contains__(self, id: TaskId) -> bool:
        file, row, trial = id
        rows = self._rows.get((file, trial))
        return rows is not None and row in rows

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))

    def __iter__(self) -> Iterator[TaskId]:
        return (TaskId(file, row, trial) for (file, trial), rows in self._rows.items() for row in rows)

    def __repr__(self) -> str:
        return f"<IdSet of {len(self)}>"

    def encode(self) -> bytes:
        """Return the set as MessagePack."""
        for rows in self._rows.values():
            rows.run_optimize()
        return _encoder.encode([(*key, rows.serialize()) for key, rows in self._rows.items()])

    @classmethod
    def decode(cls, data: bytes) -> "IdSet":
        """Return the set that `encode` wrote.

        Raises:
            CodecError: if `data` is not an encoded set.
        """
        ids = cls()
        ids.merge_encoded(data)
        return ids
