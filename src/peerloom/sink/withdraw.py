"""Taking failed rows back, so that they are done again.

Nobody writes the shard meanwhile: it is taken as a take-over takes it, and all its parts are settled.
Then, for each part that holds failed rows:

1. a file with the same rejected lines in another order, the failed ones last, is renamed over the old one;
2. an index that ends before those is renamed over the old one;
3. the file without them is renamed over the longer one.

So the files agree with each other at every instant, and each failed row is there and committed, or it is
not committed: what lies beyond an index's end does not count, and the next take-over cuts it off.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from peerloom.errors import RunDirError
from peerloom.idset import IdSet
from peerloom.sink.files import size_of, sync_folder, write_failed, write_whole
from peerloom.sink.index import OPENING, Group, closing, frame, read_prefix, sum_up
from peerloom.sink.layout import DATA, INDEX, REJECTED, PartName, list_parts, lock_path
from peerloom.sink.lock import ShardLock
from peerloom.sink.rows import tally_of
from peerloom.sink.takeover import recover
from peerloom.sink.totals import Totals
from peerloom.task import FAILED, TaskId

Forget = Callable[[IdSet], None]


class _Split(NamedTuple):
    """The rejected lines of a part, the ids of the failed ones, and its index without those."""

    part: PartName
    kept: bytes
    failed: bytes
    ids: IdSet
    new_index: bytes


def forget_nothing(ids: IdSet) -> None:
    """There is no journal yet that would know the tasks."""


def withdraw_failed(run_dir: Path, incarnation: int, forget: Forget = forget_nothing) -> IdSet:
    """Remove all failed rows from a run directory; their ids, which are not committed any more.

    Args:
        run_dir: a run directory of which no session is at work; one that was killed may still be writing.
        incarnation: a number greater than any that has taken a shard, and less than any that will.
        forget: called with the ids before their rows are gone, so that no attempt at them is remembered.

    Raises:
        ShardLost: if a later incarnation has taken a shard.
        DiskFull: if there is no room; nothing is lost, and it may be tried again.
        SinkError: if a file could not be read or written.
        RunDirError: if a file is missing or damaged.
    """
    withdrawn = IdSet()
    for shard in sorted({name.shard for name in list_parts(run_dir, INDEX)}):
        lock = ShardLock(lock_path(run_dir, shard), incarnation)
        try:
            _, totals = recover(run_dir, shard)
            lock.taken()
            if totals.outcomes.get(FAILED):
                withdrawn.merge(_withdraw(run_dir, shard, forget))
        except OSError as error:
            raise write_failed(Path(error.filename or run_dir), error) from error
        finally:
            lock.close()
    return withdrawn


def _withdraw(run_dir: Path, shard: int, forget: Forget) -> IdSet:
    ids = IdSet()
    for part in list_parts(run_dir, INDEX):
        split = _split(run_dir, part) if part.shard == shard else None
        if split is not None:
            forget(split.ids)
            _cut_out(run_dir, split)
            ids.merge(split.ids)
    return ids


def _cut_out(run_dir: Path, split: _Split) -> None:
    data, rejected, index = (split.part.path(run_dir, folder) for folder in (DATA, REJECTED, INDEX))
    write_whole(rejected, split.kept + split.failed)
    write_whole(index, split.new_index)
    if split.kept:
        write_whole(rejected, split.kept)
        return
    rejected.unlink()
    if not data.exists():
        sync_folder(rejected.parent)
        index.unlink()  # last: rows without one are an error


def _split(run_dir: Path, part: PartName) -> _Split | None:
    """A settled part taken apart; None if it holds no failed row."""
    data, rejected, index = (part.path(run_dir, folder) for folder in (DATA, REJECTED, INDEX))
    ends = size_of(data), size_of(rejected)
    whole = sum_up(read_prefix(index.read_bytes(), ends, str(index)).groups, ends)
    if not whole.totals.outcomes.get(FAILED):
        return None
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
    new_ends, new_index = (ends[0], sum(map(len, kept))), OPENING
    if ids:
        group = Group(ids, *new_ends, whole.totals)
        new_index += frame(group) + closing(sum_up([group], new_ends))
    return _Split(part, b"".join(kept), b"".join(failed), withdrawn, new_index)


def _read(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise RunDirError(f"{path}:{number} is damaged: {error.msg}") from error
