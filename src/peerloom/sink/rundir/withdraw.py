"""Withdraw failed rows, so that their tasks run again.

No process writes the shard meanwhile: its lock is taken as in a take-over and held to the end, and all its
parts are closed. Then, for each part that holds failed rows:

1. a file with the same rejected lines in another order, the failed ones last, is renamed over the old one;
2. an index that ends before the failed ones is renamed over the old one;
3. a file without the failed ones is renamed over the longer one.

So the files agree with each other at every moment, and each failed row is either present and committed, or
not committed: lines beyond the end in the index do not count, and the next take-over cuts them off.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from peerloom.errors import RunDirError
from peerloom.idset import IdSet
from peerloom.sink.files import size_of, sync_folder, write_atomically, write_failed
from peerloom.sink.index import OPENING, Closed, CommittedGroup, closing, frame, read_closed, sum_up
from peerloom.sink.journal.prune import forget
from peerloom.sink.layout import INDEX, REJECTED, PartName, list_parts, lock_path
from peerloom.sink.lock import ShardLock
from peerloom.sink.rows import tally_of
from peerloom.sink.takeover import recover
from peerloom.sink.totals import Totals
from peerloom.task import FAILED, TaskId


class _Split(NamedTuple):
    """The rejected lines of a part, the ids of the failed ones, and an index without the failed ones."""

    part: PartName
    kept: bytes
    failed: bytes
    ids: IdSet
    new_index: bytes


def withdraw_failed(run_dir: Path, incarnation: int) -> IdSet:
    """Remove all failed rows from a run directory, and return their ids, which are not committed any more.

    Their records are removed from the journal first, so that the tasks start from the beginning.

    There is no active session, but one that was killed may still be writing. `incarnation` is greater than
    any that has taken a shard, and less than any that will.

    Raises:
        ShardLost: if a later incarnation has taken a shard.
        DiskFull: if there is no room; nothing is lost, and the call may be tried again.
        SinkError: if a file could not be read or written.
        RunDirError: if a file is missing or damaged.
    """
    withdrawn = IdSet()
    try:
        with ExitStack() as locks:
            for shard in sorted({name.shard for name in list_parts(run_dir, INDEX)}):
                lock = ShardLock(lock_path(run_dir, shard), incarnation)
                locks.callback(lock.close)
                recover(run_dir, shard)  # the lock is held to the end, unlike in a take-over
            parts = [part for part in list_parts(run_dir, INDEX) if _has_failed(run_dir, part)]
            for part in parts:
                withdrawn.merge(_split(run_dir, part).ids)
            if parts:
                forget(run_dir, withdrawn)
            for part in parts:
                _remove_failed(run_dir, _split(run_dir, part))
    except OSError as error:
        raise write_failed(Path(error.filename or run_dir), error) from error
    return withdrawn


def _remove_failed(run_dir: Path, split: _Split) -> None:
    data, rejected, index = split.part.paths(run_dir)
    write_atomically(rejected, split.kept + split.failed)
    write_atomically(index, split.new_index)
    if split.kept:
        write_atomically(rejected, split.kept)
        return
    rejected.unlink()
    if not data.exists():
        sync_folder(rejected.parent)
        index.unlink()  # last: rows without one are an error


def _has_failed(run_dir: Path, part: PartName) -> bool:
    return FAILED in _closing_record(run_dir, part).totals.outcomes


def _closing_record(run_dir: Path, part: PartName) -> Closed:
    """Return the closing record of a part that was taken over."""
    data, rejected, index = part.paths(run_dir)
    closed = read_closed(index, (size_of(data), size_of(rejected)))
    if closed is None:
        raise RunDirError(
            f"{index} does not go with {data.name}: another program has changed the run directory"
        )
    return closed


def _split(run_dir: Path, part: PartName) -> _Split:
    """Separate the failed rows of a closed part from the others."""
    closed, rejected = _closing_record(run_dir, part), part.path(run_dir, REJECTED)
    kept: list[bytes] = []
    failed: list[bytes] = []
    withdrawn, failed_totals = IdSet(), Totals()
    for number, line in enumerate(rejected.read_bytes().splitlines(keepends=True), 1):
        row = _read(line, rejected, number)
        if row["outcome"] == FAILED:
            failed.append(line)
            withdrawn.add(TaskId(*map(int, row["id"].split("-"))))
            failed_totals.add_row(FAILED, row["reason"], tally_of(row))
        else:
            kept.append(line)
    closed.totals.add(failed_totals, sign=-1)
    ids = [id for id in IdSet.decode(closed.ids) if id not in withdrawn]
    new_ends, new_index = (closed.ends[0], sum(map(len, kept))), OPENING
    if ids:
        group = CommittedGroup(ids, *new_ends, closed.totals)
        new_index += frame(group) + closing(sum_up([group], new_ends))
    return _Split(part, b"".join(kept), b"".join(failed), withdrawn, new_index)


def _read(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise RunDirError(f"{path}:{number} is damaged: {error.msg}") from error
