"""Taking failed rows back, so that they are done again.

Nobody writes the shard meanwhile: it is taken as a take-over takes it, no other taker is let in before the
end, and all its parts are settled.
Then, for each part that holds failed rows:

1. a file with the same rejected lines in another order, the failed ones last, is renamed over the old one;
2. an index that ends before those is renamed over the old one;
3. the file without them is renamed over the longer one.

So the files agree with each other at every instant, and each failed row is there and committed, or it is
not committed: what lies beyond an index's end does not count, and the next take-over cuts it off.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from peerloom.errors import RunDirError
from peerloom.idset import IdSet
from peerloom.sink.files import size_of, sync_folder, write_failed, write_atomically
from peerloom.sink.index import OPENING, Closed, Group, closing, frame, read_closed, sum_up
from peerloom.sink.journal.prune import forget
from peerloom.sink.layout import DATA, INDEX, REJECTED, PartName, list_parts, lock_path
from peerloom.sink.lock import ShardLock
from peerloom.sink.rows import tally_of
from peerloom.sink.takeover import recover
from peerloom.sink.totals import Totals
from peerloom.task import FAILED, TaskId


class _Split(NamedTuple):
    """The rejected lines of a part, the ids of the failed ones, and its index without those."""

    part: PartName
    kept: bytes
    failed: bytes
    ids: IdSet
    new_index: bytes


def withdraw_failed(run_dir: Path, incarnation: int) -> IdSet:
    """Remove all failed rows from a run directory; their ids, which are not committed any more.

    What the journal knows of them is forgotten first, so that they begin anew.

    Args:
        run_dir: a run directory of which no session is at work; one that was killed may still be writing.
        incarnation: a number greater than any that has taken a shard, and less than any that will.

    Raises:
        ShardLost: if a later incarnation has taken a shard.
        DiskFull: if there is no room; nothing is lost, and it may be tried again.
        SinkError: if a file could not be read or written.
        RunDirError: if a file is missing or damaged.
    """
    withdrawn = IdSet()
    try:
        with ExitStack() as locks:
            for shard in sorted({name.shard for name in list_parts(run_dir, INDEX)}):
                lock = ShardLock(lock_path(run_dir, shard), incarnation)
                locks.callback(lock.close)
                recover(run_dir, shard)  # the lock is kept to the end, unlike in a take-over
            parts = [part for part in list_parts(run_dir, INDEX) if _has_failed(run_dir, part)]
            for part in parts:
                withdrawn.merge(_split(run_dir, part).ids)
            if parts:
                forget(run_dir, withdrawn)
            for part in parts:
                _cut_out(run_dir, _split(run_dir, part))
    except OSError as error:
        raise write_failed(Path(error.filename or run_dir), error) from error
    return withdrawn


def _cut_out(run_dir: Path, split: _Split) -> None:
    data, rejected, index = (split.part.path(run_dir, folder) for folder in (DATA, REJECTED, INDEX))
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
    return FAILED in _settled(run_dir, part).totals.outcomes


def _settled(run_dir: Path, part: PartName) -> Closed:
    """What a part adds up to that was taken over."""
    data, rejected, index = (part.path(run_dir, folder) for folder in (DATA, REJECTED, INDEX))
    closed = read_closed(index, (size_of(data), size_of(rejected)))
    if closed is None:
        raise RunDirError(
            f"{index} does not go with {data.name}: somebody else has changed the run directory"
        )
    return closed


def _split(run_dir: Path, part: PartName) -> _Split:
    """A settled part taken apart."""
    whole, rejected = _settled(run_dir, part), part.path(run_dir, REJECTED)
    kept: list[bytes] = []
    failed: list[bytes] = []
    withdrawn, gone = IdSet(), Totals()
    for number, line in enumerate(rejected.read_bytes().splitlines(keepends=True), 1):
        row = _read(line, rejected, number)
        if row["outcome"] == FAILED:
            failed.append(line)
            withdrawn.add(TaskId(*map(int, row["id"].split("-"))))
            gone.add_row(FAILED, row["reason"], tally_of(row))
        else:
            kept.append(line)
    whole.totals.subtract(gone)
    ids = [id for id in IdSet.decode(whole.ids) if id not in withdrawn]
    new_ends, new_index = (whole.ends[0], sum(map(len, kept))), OPENING
    if ids:
        group = Group(ids, *new_ends, whole.totals)
        new_index += frame(group) + closing(sum_up([group], new_ends))
    return _Split(part, b"".join(kept), b"".join(failed), withdrawn, new_index)


def _read(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise RunDirError(f"{path}:{number} is damaged: {error.msg}") from error
