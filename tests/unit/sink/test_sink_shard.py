import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sink_helpers import assert_holds, ids_on_disk, make_folders, row, rows

from peerloom.sink.errors import DiskFull, SinkError
from peerloom.sink.shard import ShardFiles
from peerloom.task import TaskId


def test_rows_go_where_their_outcome_says(run_dir: Path):
    shard = ShardFiles.take(run_dir, 3, 1)
    shard.commit(rows(range(10)))
    shard.commit(rows(range(10, 15)))
    assert [path.name for path in run_dir.glob("data/*")] == ["part-003-0001-0000.jsonl"]
    assert [path.name for path in run_dir.glob("rejected/*")] == ["part-003-0001-0000.jsonl"]
    assert [path.name for path in run_dir.glob(".peerloom/index/*")] == ["part-003-0001-0000.idx"]
    assert_holds(run_dir, shard, range(15))
    shard.close()


def test_a_shard_without_rows_leaves_no_part(run_dir: Path):
    shard = ShardFiles.take(run_dir, 0, 1)
    shard.commit([])
    shard.close()
    assert not [*run_dir.glob("data/*"), *run_dir.glob("rejected/*"), *run_dir.glob(".peerloom/index/*")]


def test_only_completed_rows_make_no_rejected_file(run_dir: Path):
    shard = ShardFiles.take(run_dir, 0, 1)
    shard.commit([row(1), row(2)])
    shard.close()
    assert not list(run_dir.glob("rejected/*"))


def test_a_second_commit_is_a_no_op(run_dir: Path):
    shard = ShardFiles.take(run_dir, 0, 1)
    shard.commit(rows(range(5)))
    before = [path.read_bytes() for path in sorted(run_dir.glob("*/part*"))]
    shard.commit(rows(range(5)))
    assert [path.read_bytes() for path in sorted(run_dir.glob("*/part*"))] == before
    shard.commit([row(7), *rows(range(5)), row(7, size=99)])
    assert_holds(run_dir, shard, [*range(5), 7])
    shard.close()


def test_trials_of_a_row_are_rows_of_their_own(run_dir: Path):
    shard = ShardFiles.take(run_dir, 0, 1)
    first = row(1)
    shard.commit([first])
    shard.commit([type(first)(TaskId(0, 1, 1), first.outcome, first.reason, first.line, first.tally)])
    assert len(shard.committed) == 2
    assert ids_on_disk(run_dir) == [1, 1]
    shard.close()


def test_everything_is_safe_in_order_before_commit_returns(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    steps: list[str] = []
    pwrite = os.pwrite

    def step(name: str, fd: int) -> None:
        target = Path(os.readlink(f"/proc/self/fd/{fd}"))
        steps.append(f"{name} {target.name if target.is_dir() else target.parent.name}")

    shard = ShardFiles.take(run_dir, 0, 1)
    monkeypatch.setattr(os, "fdatasync", lambda fd: step("sync", fd))
    monkeypatch.setattr(os, "fsync", lambda fd: step("names of", fd))
    monkeypatch.setattr(os, "pwrite", lambda fd, *args: (step("write", fd), pwrite(fd, *args))[1])
    shard.commit([row(1), row(2), row(3, "failed"), row(4, "truncated")])
    assert steps == [
        *("names of index", "names of data", "write data", "sync data"),
        *("names of rejected", "write rejected", "sync rejected", "write index", "sync index"),
    ]
    steps.clear()
    shard.commit([row(5), row(6)])
    assert steps == ["write data", "sync data", "write index", "sync index"]
    shard.close()


def test_a_full_part_is_closed_and_the_next_one_begun(run_dir: Path):
    shard = ShardFiles.take(run_dir, 0, 4, rotate_bytes=500)
    for number in range(40):
        shard.commit(rows([number]))
    shard.close()
    parts = sorted(run_dir.glob("data/*"))
    assert len(parts) > 3
    assert [path.name for path in parts] == [f"part-000-0004-{n:04d}.jsonl" for n in range(len(parts))]
    assert all(500 <= path.stat().st_size < 600 for path in parts[:-1])
    again = ShardFiles.take(run_dir, 0, 5)
    assert_holds(run_dir, again, range(40))
    again.close()


def test_closing_twice_is_fine_and_nothing_is_committed_after_it(run_dir: Path):
    shard = ShardFiles.take(run_dir, 0, 1)
    shard.commit(rows([1]))
    shard.close()
    shard.close()
    with pytest.raises(SinkError, match="shard 0 is closed"):
        shard.commit(rows([2]))


def test_a_large_group_in_short_writes(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:100], at))
    shard = ShardFiles.take(run_dir, 0, 1)
    shard.commit(rows(range(50)))
    assert_holds(run_dir, shard, range(50))
    shard.close()


@pytest.mark.parametrize("failing", ["data", "rejected", ".peerloom/index"])
def test_a_failed_sync_ends_the_incarnation_and_is_not_tried_again(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, failing: str
):
    shard = ShardFiles.take(run_dir, 0, 1)
    shard.commit(rows(range(4)))
    calls: list[int] = []
    fdatasync = os.fdatasync

    def fail(fd: int) -> None:
        if f"/{failing}/" in os.readlink(f"/proc/self/fd/{fd}"):
            calls.append(fd)
            raise OSError(errno.EIO, "Input/output error")
        fdatasync(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        for _ in range(2):
            with pytest.raises(
                SinkError, match=f"{failing}.*could not be made durable.*taken over"
            ) as caught:
                shard.commit(rows(range(4, 8)))
            assert not isinstance(caught.value, DiskFull)
        shard.close()
    assert len(calls) == 1
    before = [path.stat().st_ino for path in run_dir.glob("*/part*")]
    ShardFiles.take(run_dir, 0, 2).close()
    assert not {path.stat().st_ino for path in run_dir.glob("*/part*")} & {*before}, (
        "copied, and synced again"
    )
    assert_new_incarnation_goes_on(run_dir)


@pytest.mark.parametrize("name", ["pwrite", "open"])
def test_another_failure_to_write_ends_the_incarnation(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    shard = ShardFiles.take(run_dir, 0, 1, rotate_bytes=1)
    shard.commit(rows(range(4)))

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        with pytest.raises(SinkError, match=r"part-000-0001-0001\.idx could not be|jsonl could not be"):
            shard.commit(rows(range(4, 8)))
    with pytest.raises(SinkError, match="could not be"):
        shard.commit(rows(range(4, 8)))
    shard.close()
    assert_new_incarnation_goes_on(run_dir)


def assert_new_incarnation_goes_on(run_dir: Path) -> None:
    """After the first four rows, and perhaps four more."""
    again = ShardFiles.take(run_dir, 0, 3)
    assert {id.row for id in again.committed} in ({*range(4)}, {*range(8)})
    assert sorted(id.row for id in again.committed) == ids_on_disk(run_dir)
    again.commit(rows(range(4, 8)))
    assert_holds(run_dir, again, range(8))
    again.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_full_disk_loses_nothing_and_the_run_goes_on(small_disk: Path):
    run_dir = make_folders(small_disk / "run")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_500_000))
    shard = ShardFiles.take(run_dir, 0, 1)
    groups = [rows(range(n, n + 500)) for n in range(0, 10_000, 500)]
    done = 0
    with pytest.raises(DiskFull, match=r"no room left to write .*part-000.*Make room there"):
        for group in groups:
            shard.commit(group)
            done += 1
    assert 1 < done < len(groups)
    assert_holds(run_dir, shard, range(done * 500))
    with pytest.raises(DiskFull):
        shard.commit(groups[done])
    ballast.unlink()
    for group in groups[done:]:
        shard.commit(group)
    shard.close()
    again = ShardFiles.take(run_dir, 0, 2)
    assert_holds(run_dir, again, range(10_000))
    again.close()


@pytest.mark.parametrize("folder", ["data", "rejected", ".peerloom/index"])
@pytest.mark.parametrize("begun", [True, False])
def test_no_room_at_any_step_cuts_back_to_the_last_good_rows(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, folder: str, begun: bool
):
    shard = ShardFiles.take(run_dir, 0, 1)
    if begun:
        shard.commit(rows(range(6)))
    pwrite = os.pwrite

    def fill_up(fd: int, data: bytes, at: int) -> int:
        if f"/{folder}/" not in os.readlink(f"/proc/self/fd/{fd}"):
            return pwrite(fd, data, at)
        if len(data) > 10:
            return pwrite(fd, data[:10], at)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fill_up)
        with pytest.raises(DiskFull, match=folder):
            shard.commit(rows(range(6, 12)))
    assert_holds(run_dir, shard, range(6) if begun else [])
    shard.commit(rows(range(6, 12)))
    assert_holds(run_dir, shard, range(0 if begun else 6, 12))
    shard.close()


def test_a_missing_folder_is_a_located_error(tmp_path: Path):
    with pytest.raises(SinkError, match=r"locks/shard-000\.lock could not be written: No such file"):
        ShardFiles.take(tmp_path, 0, 1)
