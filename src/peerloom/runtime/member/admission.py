"""Queue the tasks of a partition for admission, in the order of the source.

Rows are read in chunks, in a thread, one chunk ahead. If the source knows the positions of its rows, only
rows with a missing task are read. Otherwise the source is read from its beginning.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from peerloom.idset import IdSet, partition_of
from peerloom.runtime.settings import RunSettings
from peerloom.source.base import Position, Source, SourceRow
from peerloom.source.positions import Positioned, Positions
from peerloom.source.stream.recording import RecordedSource
from peerloom.task import TaskId

BLOCK = 8192  # rows looked up among the known ids at once
FIRST_ROWS = 32  # of the first chunk; the size doubles with each chunk, so that work begins soon
CHUNK_ROWS = 512
CHUNK_BYTES = 4 * 2**20
CHUNK_SECONDS = 0.05  # the reading time of a chunk without positions, where the size of rows is unknown

Candidate = tuple[TaskId, SourceRow]


class AdmissionQueue:
    """The candidate tasks of one partition. Few of them are `known` already.

    `known` must be complete by the first `refill`. `path` is the file with the positions of the rows, if any.
    """

    def __init__(
        self, source: Source, partition: int, settings: RunSettings, known: IdSet, path: Path
    ) -> None:
        self._source = source
        self._partition = partition
        self._partitions, self._trials = settings.partitions, settings.trials
        self._known = known
        self._path = path
        self._ready: deque[SourceRow] = deque()
        self._positions: Positions | None = None
        self._chunks: Iterator[list[SourceRow]] | None = None
        self._trial = 0  # the next trial of the first row in `_ready`
        self._ended = False

    @property
    def needs_refill(self) -> bool:
        """Whether `refill` should be called."""
        return not self._ended and len(self._ready) < CHUNK_ROWS // 2

    @property
    def exhausted(self) -> bool:
        """Whether all tasks of the partition were returned."""
        return self._ended and not self._ready

    def pop(self) -> Candidate | None:
        """Return the next candidate, or None if none is ready."""
        if not self._ready:
            return None
        row, trial = self._ready[0], self._trial
        self._trial = (trial + 1) % self._trials
        if not self._trial:
            self._ready.popleft()
        return TaskId(row.file, row.row, trial), row

    async def refill(self) -> bool:
        """Read the next chunk of rows; return False if there is none yet.

        Must not be called again before it returns.

        Raises:
            SourceError: if the input can no longer be read.
        """
        if self._chunks is None:
            self._positions = await asyncio.to_thread(self._open)
            if isinstance(self._source, RecordedSource):
                self._chunks = self._followed(self._source)
            elif self._positions is None:
                self._chunks = self._streamed()
            else:
                self._chunks = self._fetched(self._positions)
        rows = await asyncio.to_thread(next, self._chunks, None)
        self._ended = rows is None
        self._ready.extend(rows or ())
        return bool(rows) or self._ended

    def offset(self, id: TaskId) -> int:
        """Return the byte offset of a task's row, or -1 if it is unknown."""
        return self._positions.find(id.file, id.row)[0] if self._positions is not None else -1

    def _open(self) -> Positions | None:
        return self._source.positions(self._path) if isinstance(self._source, Positioned) else None

    def _fetched(self, positions: Positions) -> Iterator[list[SourceRow]]:
        return map(self._source.fetch, self._chunked(positions))

    def _followed(self, source: RecordedSource) -> Iterator[list[SourceRow]]:
        """Yield the rows of a growing record in chunks, which are empty while there is no further row."""
        chunk: list[SourceRow] = []
        for row in source.follow(self._partition, self._partitions):
            if row is not None:
                chunk.append(row)
            if row is None or len(chunk) == CHUNK_ROWS:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def _streamed(self) -> Iterator[list[SourceRow]]:
        stream, limit = self._source.rows(self._partition, self._partitions), FIRST_ROWS
        while chunk := _next_chunk(islice(stream, limit)):
            yield chunk
            limit = min(2 * limit, CHUNK_ROWS)

    def _chunked(self, positions: Positions) -> Iterator[list[Position]]:
        chunk: list[Position] = []
        size, limit = 0, FIRST_ROWS
        for position, length in self._missing(positions):
            if chunk and (len(chunk) == limit or size + length > CHUNK_BYTES):
                yield chunk
                chunk, size, limit = [], 0, min(2 * limit, CHUNK_ROWS)
            chunk.append(position)
            size += length
        if chunk:
            yield chunk

    def _missing(self, positions: Positions) -> Iterator[tuple[Position, int]]:
        """Yield the position and length of each row of this partition with a missing task."""
        for file, lines in enumerate(positions.lines):
            for start in range(0, lines, BLOCK):
                for row in self._known.missing(file, start, min(start + BLOCK, lines), self._trials):
                    if partition_of(TaskId(file, row, 0), self._partitions) == self._partition:
                        offset, length = positions.find(file, row)
                        if length:
                            yield (file, row, offset), length


def _next_chunk(rows: Iterator[SourceRow]) -> list[SourceRow]:
    """Return the first rows: at least one if any is left, and as many as the time of a chunk allows."""
    chunk: list[SourceRow] = []
    end = time.monotonic() + CHUNK_SECONDS
    for row in rows:
        chunk.append(row)
        if time.monotonic() >= end:
            break
    return chunk
