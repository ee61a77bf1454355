"""Recover the parts of a shard at a take-over, and cut off earlier writers from its files.

A part with a closing record is left unchanged, and only that record is read. Of any other part the valid
prefix is copied to new files, which are made durable, closed, and renamed over the old ones. So at every
moment each committed row is in exactly one visible file, and a late writer still writes to the old, unlinked
files. The copy also repairs a failed fsync, since it writes and syncs the pages again.
"""

import os
from pathlib import Path

from peerloom.errors import RunDirError
from peerloom.idset import IdSet
from peerloom.sink.files import size_of, sync_folder, write_failed
from peerloom.sink.index import Closed, closing, read_closed, read_prefix, sum_up
from peerloom.sink.layout import DATA, INDEX, REJECTED, PartName, list_parts, temporary
from peerloom.sink.totals import Totals


def recover(run_dir: Path, shard: int) -> tuple[IdSet, Totals]:
    """Close all parts of a shard, and return the ids committed in them and their totals.

    The caller must hold the shard's lock, so that earlier writers find out that the shard is lost.

    Raises:
        DiskFull: if there is no room to copy a part; nothing has changed then.
        SinkError: if a file could not be written.
        RunDirError: if an index is missing, or of another version.
    """
    committed, totals = IdSet(), Totals()
    names = {name for folder in (DATA, REJECTED, INDEX) for name in list_parts(run_dir, folder)}
    for name in sorted(name for name in names if name.shard == shard):
        part = _recover_part(run_dir, name)
        if part is not None:
            committed.merge_encoded(part.ids)
            totals.add(part.totals)
    return committed, totals


def _recover_part(run_dir: Path, name: PartName) -> Closed | None:
    """Close a part, and return its closing record; remove a part without committed rows."""
    data, rejected, index = name.paths(run_dir)
    try:
        closed = read_closed(index, (size_of(data), size_of(rejected)))
        if closed is not None:
            return closed
        records = index.read_bytes()
    except FileNotFoundError:
        records = None
    sizes = size_of(data), size_of(rejected)  # read after the index, so that its groups fit in
    if records is None and any(sizes):
        raise RunDirError(
            f"{index} is missing, so it is unknown which rows of {data.name} are committed: "
            "restore it, or use another --run-dir"
        )
    prefix = read_prefix(records or b"", sizes, str(index))
    if not prefix.groups:
        for path in (data, rejected, index):  # the index last: rows without an index are an error
            path.unlink(missing_ok=True)
        return None
    closed = sum_up(prefix.groups, prefix.ends)
    new_index = (records or b"")[: prefix.length] + closing(closed)
    _replace({data: prefix.ends[0], rejected: prefix.ends[1]}, index, new_index)
    return closed


def _replace(lengths: dict[Path, int], index: Path, new_index: bytes) -> None:
    """Replace the files of a part by copies that are cut to these lengths."""
    copied: list[Path] = []
    try:
        for path, length in lengths.items():
            if length:
                copied.append(path)
                _copy(path, temporary(path), length)
        copied.append(index)
        _write(temporary(index), new_index)
        for path, length in lengths.items():
            if length:
                temporary(path).rename(path)
            else:
                path.unlink(missing_ok=True)
        temporary(index).rename(index)
    except OSError as error:
        for path in copied:
            temporary(path).unlink(missing_ok=True)
        raise write_failed(copied[-1], error) from error
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
