"""Find single rows of a run by their ids, or at random, without parsing the others."""

import random
from collections.abc import Iterable, Iterator, Set
from pathlib import Path
from typing import Any, TypeVar

from peerloom.idset import IdSet
from peerloom.sink.files import size_of
from peerloom.sink.index import read_closed, read_prefix
from peerloom.sink.layout import DATA, INDEX, REJECTED, PartName, list_parts
from peerloom.sink.read import Extent, list_extents, parse_lines, read_lines
from peerloom.task import TaskId

T = TypeVar("T")


def find_rows(run_dir: Path, ids: Set[TaskId]) -> dict[TaskId, dict[str, Any]]:
    """Return the committed rows with these ids, completed or not; ids without a row are left out.

    The index of a part tells which group of rows has an id, so only that group is parsed.

    Raises:
        RunDirError: if there is no such directory, or a row is damaged.
    """
    wanted = {str(id): id for id in ids}
    found: dict[TaskId, dict[str, Any]] = {}
    indexed = list_parts(run_dir, INDEX)
    extents = [extent for name in indexed for extent in _groups(run_dir, name, ids)]
    for folder in (DATA, REJECTED):
        unindexed = set(list_parts(run_dir, folder)).difference(indexed)
        extents += [Extent(name.path(run_dir, folder), float("inf")) for name in sorted(unindexed)]
    for extent in extents:
        if len(found) == len(wanted):
            break
        found |= {wanted[row["id"]]: row for row in parse_lines(extent) if row["id"] in wanted}
    return found


def sample_rows(run_dir: Path, folder: str, number: int, seed: int | None = None) -> list[dict[str, Any]]:
    """Return some rows of `DATA` or `REJECTED`, drawn at random, in the order in which they are stored.

    Raises:
        RunDirError: if there is no such directory, or a row is damaged.
    """
    lines = (line for extent in list_extents(run_dir, folder) for line in _lines(extent))
    return [row for line in sample(lines, number, seed) for row in parse_lines(line)]


def sample(items: Iterable[T], number: int, seed: int | None = None) -> list[T]:
    """Return some items, drawn at random, in their order; only those drawn so far are in memory."""
    rng = random.Random(seed)
    drawn: list[tuple[int, T]] = []
    for count, item in enumerate(items):
        if count < number:
            drawn.append((count, item))
        elif (place := rng.randrange(count + 1)) < number:  # reservoir sampling
            drawn[place] = count, item
    return [item for _, item in sorted(drawn, key=lambda pair: pair[0])]


def _groups(run_dir: Path, name: PartName, ids: Set[TaskId]) -> Iterator[Extent]:
    """Yield the extents of the groups of a part that have some of the ids."""
    data, rejected, index = name.paths(run_dir)
    sizes = size_of(data), size_of(rejected)
    closed = read_closed(index, sizes)
    if closed is not None and not any(map(IdSet.decode(closed.ids).__contains__, ids)):
        return
    records = index.read_bytes()
    start = 0, 0
    for group in read_prefix(records, (size_of(data), size_of(rejected)), str(index)).groups:
        end = group.data_end, group.rejected_end
        if not ids.isdisjoint(group.ids):
            yield Extent(data, end[0], start[0])
            yield Extent(rejected, end[1], start[1])
        start = end


def _lines(extent: Extent) -> Iterator[Extent]:
    """Yield the extent of each line."""
    end = extent.start
    for line in read_lines(extent):
        start, end = end, end + len(line)
        yield Extent(extent.path, end, start)
