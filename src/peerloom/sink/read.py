"""Read the committed rows of a run directory, even while the run is active."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from peerloom.errors import RunDirError
from peerloom.sink.calls.stored import restore_calls
from peerloom.sink.files import size_of
from peerloom.sink.index import Closed, read_closed, read_prefix, sum_up
from peerloom.sink.layout import DATA, INDEX, REJECTED, PartName, list_parts
from peerloom.sink.totals import Totals
from peerloom.stored import from_stored


class Extent(NamedTuple):
    """A part's file, and the range of its committed bytes; rows that are appended later are not included."""

    path: Path
    end: float
    start: int = 0


def read_rows(run_dir: str | os.PathLike[str], *, rejected: bool = True) -> Iterator[dict[str, Any]]:
    """Yield all committed rows, completed ones first.

    If a part has an index, only the rows that it names are read; so a row that was being written when the run
    was killed is left out. Otherwise all complete lines are read.

    Args:
        run_dir: the run directory.
        rejected: include the rows that did not complete.

    Raises:
        RunDirError: if there is no such directory, or a line in it is damaged.
    """
    directory = Path(run_dir)
    if not directory.is_dir():
        raise RunDirError(f"there is no run directory {directory}")
    return _read_all(directory, (DATA, REJECTED) if rejected else (DATA,))


def read_totals(run_dir: Path) -> Totals:
    """Return the totals of all committed rows."""
    totals = Totals()
    for name in list_parts(run_dir, INDEX):
        totals.add(_read_index(run_dir, name).totals)
    return totals


def list_extents(run_dir: Path, folder: str) -> list[Extent]:
    """Return the extents of the rows that are committed now in `DATA` or `REJECTED`.

    They can be read repeatedly, while rows are added.

    Raises:
        RunDirError: if there is no such directory, or an index is of another version.
    """
    if not run_dir.is_dir():
        raise RunDirError(f"there is no run directory {run_dir}")
    extents = (_extent(run_dir, folder, name) for name in list_parts(run_dir, folder))
    return [extent._replace(end=min(extent.end, size_of(extent.path))) for extent in extents]


def read_lines(extent: Extent) -> Iterator[bytes]:
    """Yield the lines in an extent, each with its newline."""
    try:
        file = extent.path.open("rb")
    except FileNotFoundError:
        return  # an empty part that was removed by a take-over
    with file:
        file.seek(extent.start)
        position = extent.start
        for line in file:
            position += len(line)
            if position > extent.end or not line.endswith(b"\n"):
                return
            yield line


def read_blocks(extent: Extent, size: int) -> Iterator[bytes]:
    """Yield the lines in an extent in blocks of about `size` bytes, or of one longer line."""
    try:
        file = extent.path.open("rb")
    except FileNotFoundError:
        return  # an empty part that was removed by a take-over
    with file:
        file.seek(extent.start)
        left = min(extent.end, size_of(extent.path)) - extent.start
        rest = b""
        while data := file.read(int(min(size, left))):
            left -= len(data)
            block = rest + data
            end = block.rfind(b"\n") + 1
            rest = block[end:]
            if end:
                yield block[:end]


def parse_lines(extent: Extent) -> Iterator[dict[str, Any]]:
    """Yield the committed rows of a part.

    Raises:
        RunDirError: if one is damaged.
    """
    for number, line in enumerate(read_lines(extent), 1):
        yield parse_line(extent, number, line)


def parse_line(extent: Extent, number: int, line: bytes) -> dict[str, Any]:
    """Return the row in a line of a part.

    Raises:
        RunDirError: if it is damaged.
    """
    try:
        return parse_row(line)
    except ValueError as error:
        raise RunDirError(f"{extent.path}:{number} is damaged: {error}") from error


def parse_row(line: bytes) -> dict[str, Any]:
    """Return the row in a line, with full requests.

    Raises:
        ValueError: if it is damaged.
    """
    row = from_stored(orjson.loads(line))
    try:
        restore_calls(row)
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError("its calls cannot be read") from error
    return row


def _read_all(directory: Path, folders: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for folder in folders:
        for name in list_parts(directory, folder):
            yield from parse_lines(_extent(directory, folder, name))


def _extent(directory: Path, folder: str, name: PartName) -> Extent:
    path = name.path(directory, folder)
    try:
        return Extent(path, _read_index(directory, name).ends[0 if folder == DATA else 1])
    except FileNotFoundError:
        return Extent(path, float("inf"))


def _read_index(directory: Path, name: PartName) -> Closed:
    """Return the closing record of a part; for an open part, the one that it would have now."""
    data, rejected, index = name.paths(directory)
    closed = read_closed(index, (size_of(data), size_of(rejected)))
    if closed is not None:
        return closed
    records = index.read_bytes()
    sizes = size_of(data), size_of(rejected)  # read after the index, so that its groups fit in
    prefix = read_prefix(records, sizes, str(index))
    return sum_up(prefix.groups, prefix.ends)
