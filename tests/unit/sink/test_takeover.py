import errno
import os
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from sink_helpers import Killed, assert_holds, at_system_call, ids_on_disk, make_folders, rows

from peerloom.errors import RunDirError
from peerloom.sink import index
from peerloom.sink.errors import DiskFull, ShardLost
from peerloom.sink.shard import ShardFiles

DATA = "data/part-000-0001-0000.jsonl"
REJECTED = "rejected/part-000-0001-0000.jsonl"
INDEX = ".peerloom/index/part-000-0001-0000.idx"


def three_groups(run_dir: Path) -> ShardFiles:
    """Rows 0 to 11 in three groups, by an incarnation that is still there."""
    shard = ShardFiles.take(run_dir, 0, 1)
    for start in (0, 4, 8):
        shard.commit(rows(range(start, start + 4)))
    return shard


def go_on(run_dir: Path, committed: int) -> None:
    """The next incarnation knows the first rows, and commits the others."""
    shard = ShardFiles.take(run_dir, 0, 2)
    assert_holds(run_dir, shard, range(committed))
    shard.commit(rows(range(15)))
    assert_holds(run_dir, shard, range(15))
    shard.close()
    again = ShardFiles.take(run_dir, 0, 3)
    assert_holds(run_dir, again, range(15))
    again.close()


def test_the_next_incarnation_knows_rows_and_totals(run_dir: Path):
    shard = three_groups(run_dir)
    shard.close()
    go_on(run_dir, 12)


def test_a_closed_part_is_left_alone(run_dir: Path):
    three_groups(run_dir).close()
    before = {path: path.stat().st_ino for path in run_dir.glob("*/part*")}
    ShardFiles.take(run_dir, 0, 2).close()
    assert {path: path.stat().st_ino for path in run_dir.glob("*/part*")} == before


def test_shards_do_not_touch_one_another(run_dir: Path):
    first, second = ShardFiles.take(run_dir, 0, 1), ShardFiles.take(run_dir, 1, 1)
    first.commit(rows([1, 2]))
    second.commit(rows([3, 4]))
    ShardFiles.take(run_dir, 1, 2).close()
    first.commit(rows([5]))
    assert ids_on_disk(run_dir) == [1, 2, 3, 4, 5]
    assert len(first.committed) == 3
    first.close()
    second.close()


@pytest.mark.parametrize("tail", [b'{"id": "0-99-0", "outco', b'{"id": "0-99-0", "outcome": "completed"}\n'])
@pytest.mark.parametrize("file", [DATA, REJECTED])
@pytest.mark.parametrize("closed", [True, False])
def test_rows_that_were_never_committed_are_cut(run_dir: Path, tail: bytes, file: str, closed: bool):
    shard = three_groups(run_dir)
    if closed:
        shard.close()
    with (run_dir / file).open("ab") as part:
        part.write(tail)
    go_on(run_dir, 12)


def test_a_torn_index_tail_is_cut_with_its_rows(run_dir: Path):
    shard = three_groups(run_dir)
    whole = (run_dir / INDEX).read_bytes()
    shard.commit(rows(range(12, 15)))
    longer = (run_dir / INDEX).read_bytes()
    assert longer.startswith(whole)
    (run_dir / INDEX).write_bytes(longer[:-1])
    go_on(run_dir, 12)


def test_garbage_after_the_index_is_cut(run_dir: Path):
    three_groups(run_dir).close()
    with (run_dir / INDEX).open("ab") as file:
        file.write(bytes(40))
    go_on(run_dir, 12)


@pytest.mark.parametrize("file", [DATA, REJECTED])
def test_groups_whose_rows_are_gone_are_cut(run_dir: Path, file: str):
    three_groups(run_dir).close()
    os.truncate(run_dir / file, (run_dir / file).stat().st_size - 1)
    go_on(run_dir, 8)


@pytest.mark.parametrize("closed", [True, False])
def test_a_flipped_byte_in_the_index_cuts_what_follows(run_dir: Path, closed: bool):
    with at_system_call(0, lambda: None):
        shard = three_groups(run_dir)
        if closed:
            shard.close()
        files = {name: (run_dir / name).read_bytes() for name in (DATA, REJECTED, INDEX)}
        seen: set[int] = set()
        for position in range(0, len(files[INDEX]), 7):
            for name, content in files.items():
                (run_dir / name).write_bytes(content)
            damaged = bytearray(files[INDEX])
            damaged[position] ^= 0x10
            (run_dir / INDEX).write_bytes(damaged)
            shard = ShardFiles.take(run_dir, 0, position + 2)
            assert_holds(run_dir, shard, range(len(shard.committed)))
            shard.close()
            seen.add(len(shard.committed))
        assert seen == ({12} if closed else {0, 4, 8})


def test_a_closed_part_costs_its_last_record_only(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    three_groups(run_dir).close()

    def refuse(*_: object) -> None:
        raise AssertionError("a closed part was read group by group")

    monkeypatch.setattr("peerloom.sink.takeover.read_prefix", refuse)
    shard = ShardFiles.take(run_dir, 0, 2)
    assert_holds(run_dir, shard, range(12))
    shard.close()


def test_a_closing_record_cut_anywhere_is_written_again(run_dir: Path):
    with at_system_call(0, lambda: None):
        shard = three_groups(run_dir)
        open_length = (run_dir / INDEX).stat().st_size
        shard.close()
        files = {name: (run_dir / name).read_bytes() for name in (DATA, REJECTED, INDEX)}
        for length in range(open_length, len(files[INDEX])):
            for name, content in files.items():
                (run_dir / name).write_bytes(content[:length] if name == INDEX else content)
            shard = ShardFiles.take(run_dir, 0, length)
            assert_holds(run_dir, shard, range(12))
            shard.close()
            assert (run_dir / INDEX).read_bytes() == files[INDEX]


def test_a_long_closing_record_is_read_whole(run_dir: Path):
    shard = ShardFiles.take(run_dir, 0, 1)
    scattered = [number * 101 for number in range(10_000)]
    shard.commit(rows(scattered))
    shard.close()
    assert len(shard.committed.encode()) > 16 * 1024
    again = ShardFiles.take(run_dir, 0, 2)
    assert_holds(run_dir, again, scattered)
    again.close()


def test_an_index_of_another_version_is_refused(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("peerloom.sink.part.OPENING", index.frame(index.Opened(index.VERSION + 1)))
    with monkeypatch.context() as patch:
        patch.setattr(index, "VERSION", index.VERSION + 1)
        three_groups(run_dir).close()
    with pytest.raises(RunDirError, match=r"part-000-0001-0000\.idx is of index version 3"):
        ShardFiles.take(run_dir, 0, 2)
    assert len(ids_on_disk(run_dir)) == 12


def test_rows_without_an_index_are_not_thrown_away(run_dir: Path):
    three_groups(run_dir).close()
    (run_dir / INDEX).unlink()
    with pytest.raises(RunDirError, match=r"part-000-0001-0000\.idx is missing"):
        ShardFiles.take(run_dir, 0, 2)
    assert len(ids_on_disk(run_dir)) == 12


def test_a_late_writer_writes_to_nothing(run_dir: Path):
    late = three_groups(run_dir)
    shard = ShardFiles.take(run_dir, 0, 2)
    assert_holds(run_dir, shard, range(12))
    shard.commit(rows([12]))
    for numbers in ([12, 13], [14]):
        with pytest.raises(ShardLost, match="taken by incarnation 2"):
            late.commit(rows(numbers))
    assert_holds(run_dir, shard, range(13))
    shard.commit(rows([12, 13, 14]))
    late.close()
    assert_holds(run_dir, shard, range(15))
    shard.close()


@pytest.mark.parametrize("rotate_bytes", [1, 1000])
def test_a_late_writer_begins_no_part_or_file(run_dir: Path, rotate_bytes: int):
    late = ShardFiles.take(run_dir, 0, 1, rotate_bytes=rotate_bytes)
    late.commit(rows([1, 2]))
    shard = ShardFiles.take(run_dir, 0, 2)
    with pytest.raises(ShardLost):
        late.commit(rows([3]))
    late.close()
    assert_holds(run_dir, shard, [1, 2])
    assert not list(run_dir.glob("rejected/*"))
    shard.close()


def test_an_incarnation_that_is_not_newer_is_refused(run_dir: Path):
    shard = ShardFiles.take(run_dir, 0, 5)
    for incarnation in (4, 5):
        with pytest.raises(ShardLost, match="taken by incarnation 5"):
            ShardFiles.take(run_dir, 0, incarnation)
    shard.commit(rows([1]))
    shard.close()


def test_the_copies_are_safe_before_they_replace_and_their_names_before_it_is_over(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    three_groups(run_dir)
    steps: list[str] = []
    real = {name: getattr(os, name) for name in ("fdatasync", "fsync", "rename")}

    def sync(name: str, fd: int) -> None:
        target = Path(os.readlink(f"/proc/self/fd/{fd}"))
        steps.append(f"{name} {target.parent.name if name == 'fdatasync' else target.name}")
        real[name](fd)

    def rename(old: Path, new: Path) -> None:
        steps.append(f"rename {Path(new).parent.name}")
        real["rename"](old, new)

    monkeypatch.setattr(os, "fdatasync", lambda fd: sync("fdatasync", fd))
    monkeypatch.setattr(os, "fsync", lambda fd: sync("fsync", fd))
    monkeypatch.setattr(os, "rename", rename)
    ShardFiles.take(run_dir, 0, 2).close()
    folders = ("data", "rejected", "index")
    assert steps == [f"{step} {folder}" for step in ("fdatasync", "rename", "fsync") for folder in folders]


def test_no_room_for_the_copy_changes_nothing(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    three_groups(run_dir)
    before = {path: path.read_bytes() for path in run_dir.rglob("*part*")}

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "sendfile", fail)
        with pytest.raises(DiskFull, match=r"part-000-0001-0000\.jsonl"):
            ShardFiles.take(run_dir, 0, 2)
    assert {path: path.read_bytes() for path in run_dir.rglob("*part*")} == before
    shard = ShardFiles.take(run_dir, 0, 3)
    assert_holds(run_dir, shard, range(12))
    shard.close()


@pytest.mark.parametrize("rotate_bytes", [1, 10_000])
def test_killed_at_any_system_call_of_a_commit(tmp_path: Path, rotate_bytes: int):
    """What was acknowledged stays; what was not is there once, or not at all."""
    for number in count(1):
        run_dir = make_folders(tmp_path / str(number))

        def kill() -> None:
            raise Killed

        acknowledged: set[int] = set()
        with at_system_call(number, kill) as reached:
            with suppress(Killed):
                shard = ShardFiles.take(run_dir, 0, 1, rotate_bytes=rotate_bytes)
                for group in ({1, 2}, {3, 4}, {5}):
                    shard.commit(rows(group))
                    acknowledged |= group
        with at_system_call(0, kill):
            recovered(run_dir, acknowledged, incarnation=2)
        if not reached():
            assert number > 20
            return


@pytest.mark.parametrize("rotate_bytes", [1, 10_000])
def test_taken_over_at_any_system_call_of_a_commit(tmp_path: Path, rotate_bytes: int):
    """The late writer is stopped there, and goes on when the shard has a new owner."""
    for number in count(1):
        run_dir = make_folders(tmp_path / str(number))
        takers: list[ShardFiles] = []

        def take(run_dir: Path = run_dir, takers: list[ShardFiles] = takers) -> None:
            takers.append(ShardFiles.take(run_dir, 0, 2))

        acknowledged: set[int] = set()
        late = ShardFiles.take(run_dir, 0, 1, rotate_bytes=rotate_bytes)
        with at_system_call(number, take) as reached:
            try:
                for group in ({1, 2}, {3, 4}, {5}):
                    late.commit(rows(group))
                    acknowledged |= group
            except ShardLost:
                assert takers
            late.close()
            for taker in takers:
                known = {id.row for id in taker.committed}
                assert acknowledged <= known <= {1, 2, 3, 4, 5}
                assert ids_on_disk(run_dir) == sorted(known)
                taker.close()
        with at_system_call(0, take):
            recovered(run_dir, acknowledged, incarnation=3)
        if not reached():
            assert number > 20
            return


@pytest.mark.parametrize("rotate_bytes", [1, 10_000])
def test_a_late_writer_commits_at_any_system_call_of_a_takeover(tmp_path: Path, rotate_bytes: int):
    for number in count(1):
        run_dir = make_folders(tmp_path / str(number))
        acknowledged: set[int] = set()
        late = ShardFiles.take(run_dir, 0, 1, rotate_bytes=rotate_bytes)

        def write(late: ShardFiles = late, acknowledged: set[int] = acknowledged) -> None:
            for group in ({3, 4}, {5}):
                with suppress(ShardLost):
                    late.commit(rows(group))
                    acknowledged |= group

        with at_system_call(0, write):
            late.commit(rows([1, 2]))
        with at_system_call(number, write) as reached:
            shard = ShardFiles.take(run_dir, 0, 2)
        late.close()
        assert {1, 2} | acknowledged <= {id.row for id in shard.committed}
        with at_system_call(0, write):
            shard.commit(rows(range(15)))
        assert_holds(run_dir, shard, range(15))
        shard.close()
        if not reached():
            assert number > 5
            return


@pytest.mark.parametrize("late_writer", [True, False])
def test_a_taker_killed_at_any_system_call(tmp_path: Path, late_writer: bool):
    """Whoever takes the shard after it finds every row that was acknowledged."""
    for number in count(1):
        run_dir = make_folders(tmp_path / str(number))

        def kill() -> None:
            raise Killed

        with at_system_call(0, kill):
            late = three_groups(run_dir)
            with (run_dir / DATA).open("ab") as part:
                part.write(b'{"torn')
        acknowledged = {*range(12)}
        with at_system_call(number, kill) as reached:
            with suppress(Killed):
                ShardFiles.take(run_dir, 0, 2).close()
        with at_system_call(0, kill):
            if late_writer:
                with suppress(ShardLost):
                    late.commit(rows([12, 13]))
                    acknowledged |= {12, 13}
            recovered(run_dir, acknowledged, incarnation=3)
        late.close()
        if not reached():
            assert number > 15
            return


def recovered(run_dir: Path, acknowledged: set[int], incarnation: int) -> None:
    shard = ShardFiles.take(run_dir, 0, incarnation)
    known = {id.row for id in shard.committed}
    assert acknowledged <= known
    assert_holds(run_dir, shard, known)
    shard.commit(rows(range(15)))
    assert_holds(run_dir, shard, range(15))
    shard.close()
