"""Taking a shard over: what is committed, and no file that an earlier writer could still reach.

A part with a closing record is left as it is, and only that record is read. Of any other part the valid
prefix is copied to new files, which are made durable, closed, and renamed over the old ones. So at every
instant each committed row is in exactly one visible file, and a writer that is late still has the old,
nameless files in its hands. The copy also heals a failed fsync, since it writes and syncs the pages once
more.
"""

import os
from pathlib import Path

from peerloom.errors import RunDirError
from peerloom.idset import IdSet
from peerloom.sink.files import size_of, sync_folder, write_failed
from peerloom.sink.index import Closed, closing, read_closed, read_prefix, sum_up
from peerloom.sink.layout import DATA, INDEX, REJECTED, PartName, list_parts
from peerloom.sink.totals import Totals

_FOLDERS = (DATA, REJECTED, INDEX)


def recover(run_dir: Path, shard: int) -> tuple[IdSet, Totals]:
    """Settle all parts of a shard; return the ids committed in them and what they add up to.

    The caller has made sure that it is the only one to do so, and that earlier writers will know.

    Raises:
        DiskFull: if there is no room to copy a part; nothing has changed then.
        SinkError: if a file could not be written.
        RunDirError: if an index is missing, or of another version.
    """
    committed, totals = IdSet(), Totals()
    names = {name for folder in _FOLDERS for name in list_parts(run_dir, folder) if name.shard == shard}
    for name in sorted(names):
        part = _settle(run_dir, name)
        if part is not None:
            committed.merge_encoded(part.ids)
            totals.add(part.totals)
    return committed, totals


def _settle(run_dir: Path, name: PartName) -> Closed | None:
    """Make a part one that nobody writes, and return what is in it, if anything."""
    data, rejected, index = (name.path(run_dir, folder) for folder in _FOLDERS)
    try:
        closed = read_closed(index, (size_of(data), size_of(rejected)))
        if closed is not None:
            return closed
        records = index.read_bytes()
    except FileNotFoundError:
        records = None
    sizes = size_of(data), size_of(rejected)  # after the index, so that its groups are within
    if records is None and any(sizes):
        raise RunDirError(
            f"{index} is missing, so nobody can tell which rows of {data.name} count: "
            "bring it back, or use another --run-dir"
        )
    prefix = read_prefix(records or b"", sizes, str(index))
    if not prefix.groups:
        for path in (data, rejected, index):  # the index last: rows without one are an error
            path.unlink(missing_ok=True)
        return None
    closed = sum_up(prefix.groups, prefix.ends)
    new_index = (records or b"")[: prefix.length] + closing(closed)
    _replace({data: prefix.ends[0], rejected: prefix.ends[1]}, index, new_index)
    return closed


def _replace(lengths: dict[Path, int], index: Path, new_index: bytes) -> None:
    """Put new files in the place of a part's old ones, cut to these lengths."""
    made: list[Path] = []
    try:
        for path, length in lengths.items():
            if length:
                made.append(path)
                _copy(path, _temporary(path), length)
        made.append(index)
        _write(_temporary(index), new_index)
        for path, length in lengths.items():
            if length:
                _temporary(path).rename(path)
            else:
                path.unlink(missing_ok=True)
        _temporary(index).rename(index)
    except OSError as error:
        for path in made:
            _temporary(path).unlink(missing_ok=True)
        raise write_failed(made[-1], error) from error
    for path in (*lengths, index):
        sync_folder(path.parent)


def _copy(source: Path, target: Path, length: int) -> None:
    with source.open("rb") as old, target.open("wb") as new:
        done = 0
        while done < length:
            sent = os.sendfile(new.fileno(), old.fileno(), done, length - done)
            if not sent:
                raise OSError(f"{source} became shorter while it was copied")
            done += sent
        os.fdatasync(new.fileno())


def _write(target: Path, content: bytes) -> None:
    with target.open("wb") as new:
        new.write(content)
        new.flush()
        os.fdatasync(new.fileno())


def _temporary(path: Path) -> Path:
    """A name that no reader takes for a part's; what a killed taker left there is written over."""
    return path.with_name(f".{path.name}.tmp")
