"""Write a part: two files of rows and their index, written by one incarnation up to a certain size.

A group of rows is appended to the row files and made durable; only then is its record appended to the index
and made durable. Each file that a group touches gets one write and one fdatasync.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from peerloom.idset import IdSet
from peerloom.sink.errors import DiskFull, ShardLost, SinkError
from peerloom.sink.files import AppendFile, sync_folder
from peerloom.sink.index import OPENING, Closed, CommittedGroup, closing, frame
from peerloom.sink.layout import DATA, INDEX, REJECTED, PartName
from peerloom.sink.rows import Row
from peerloom.sink.totals import Totals
from peerloom.task import COMPLETED


class PartWriter:
    """A part that is being written. Its files are created when the first row needs them.

    `check_owner` is called after each step that other processes can see; it may raise `ShardLost`.
    """

    def __init__(self, run_dir: Path, name: PartName, check_owner: Callable[[], None]) -> None:
        self._run_dir = run_dir
        self._name = name
        self._check_owner = check_owner
        self._files: dict[str, AppendFile] = {}
        self._ids, self._totals = IdSet(), Totals()  # of the part, for its closing record

    @property
    def size(self) -> int:
        """The size in bytes of the larger of the two row files."""
        return max(self._end(DATA), self._end(REJECTED))

    def append(self, rows: Sequence[Row]) -> Totals:
        """Make a group of rows durable, all or none, and return its totals.

        Raises:
            DiskFull: if there was no room; no row of the group was kept, and it may be tried again.
            ShardLost: if another incarnation has taken the shard.
            SinkError: for any other failure; the part cannot be written any more.
        """
        try:
            return self._append(rows)
        except DiskFull:
            for file in self._files.values():
                file.roll_back()
            raise

    def close(self) -> None:
        """Write the closing record to the index, and close the part's files."""
        index = self._files.get(INDEX)
        if index is not None and index.end:
            record = Closed(self._ids.encode(), (self._end(DATA), self._end(REJECTED)), self._totals)
            # If this record is missing or incomplete, a take-over copies the part instead of keeping it.
            with suppress(SinkError):
                index.append(closing(record))
        self.abandon()

    def abandon(self) -> None:
        """Close the files without a closing record."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _append(self, rows: Sequence[Row]) -> Totals:
        totals = Totals()
        lines: dict[str, list[bytes]] = {DATA: [], REJECTED: []}
        for row in rows:
            lines[DATA if row.outcome == COMPLETED else REJECTED].append(row.line)
            totals.add_row(row.outcome, row.reason, row.tally)
        index = self._file(INDEX)
        touched = [index]
        for folder, content in lines.items():
            if content:
                file = self._file(folder)
                file.append(b"\n".join([*content, b""]))
                file.sync()
                touched.append(file)
        group = CommittedGroup([row.id for row in rows], self._end(DATA), self._end(REJECTED), totals)
        index.append(frame(group) if index.end else OPENING + frame(group))
        index.sync()
        self._check_owner()
        for file in touched:
            file.checkpoint()
        self._ids.update(group.ids)
        self._totals.add(totals)
        return totals

    def _end(self, folder: str) -> int:
        file = self._files.get(folder)
        return file.end if file is not None else 0

    def _file(self, folder: str) -> AppendFile:
        """Return the part's file in a folder, and create it if needed. The index must be created first."""
        file = self._files.get(folder)
        if file is None:
            path = self._name.path(self._run_dir, folder)
            file = self._files[folder] = AppendFile(path)
            sync_folder(path.parent)
            try:
                self._check_owner()
            except ShardLost:
                path.unlink(missing_ok=True)
                raise
        return file
