"""Read the committed rows of a run directory, even while the run is active."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from peerloom.errors import RunDirError
from peerloom.sink.files import size_of
from peerloom.sink.index import Prefix, read_closed, read_prefix, sum_up
from peerloom.sink.layout import DATA, INDEX, REJECTED, PartName, list_parts
from peerloom.sink.totals import Totals


class Extent(NamedTuple):
    """A part's file, and the end of its committed bytes; rows that are appended later are not included."""

    path: Path
    end: float


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
    """Return the totals of all committed rows.

    Raises:
        RunDirError: if an index is of another version.
    """
    totals = Totals()
    for name in list_parts(run_dir, INDEX):
        data, rejected, index = name.paths(run_dir)
        closed = read_closed(index, (size_of(data), size_of(rejected)))
        if closed is None:
            prefix = _read_open(run_dir, name)
            closed = sum_up(prefix.groups, prefix.ends)
        totals.add(closed.totals)
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
    return [Extent(path, min(end, size_of(path))) for path, end in extents]


def read_lines(extent: Extent) -> Iterator[bytes]:
    """Yield the committed lines of a part, each with its newline."""
    try:
        file = extent.path.open("rb")
    except FileNotFoundError:
        return  # an empty part that was removed by a take-over
    with file:
        position = 0
        for line in file:
            position += len(line)
            if position > extent.end or not line.endswith(b"\n"):
                return
            yield line


def parse_lines(extent: Extent) -> Iterator[dict[str, Any]]:
    """Yield the committed rows of a part.

    Raises:
        RunDirError: if a line is damaged.
    """
    for number, line in enumerate(read_lines(extent), 1):
        try:
            yield orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise RunDirError(f"{extent.path}:{number} is damaged: {error.msg}") from error


def _read_all(directory: Path, folders: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for folder in folders:
        for name in list_parts(directory, folder):
            yield from parse_lines(_extent(directory, folder, name))


def _extent(directory: Path, folder: str, name: PartName) -> Extent:
    return Extent(name.path(directory, folder), _committed_end(directory, folder, name))


def _committed_end(directory: Path, folder: str, name: PartName) -> float:
    """Return the committed length of the part's file."""
    data, rejected, index = name.paths(directory)
    try:
        closed = read_closed(index, (size_of(data), size_of(rejected)))
        ends = closed.ends if closed is not None else _read_open(directory, name).ends
    except FileNotFoundError:
        return float("inf")
    return ends[0 if folder == DATA else 1]


def _read_open(directory: Path, name: PartName) -> Prefix:
    """Return the valid prefix of the index of a part that is not closed."""
    data, rejected, index = name.paths(directory)
    records = index.read_bytes()
    sizes = size_of(data), size_of(rejected)  # read after the index, so that its groups fit in
    return read_prefix(records, sizes, str(index))
