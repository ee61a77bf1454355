"""Writing the journal: segments, full and failing disks, durability."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from journal_helpers import known, open_files, put, put_turns, scanned, segments, task, turn

from peerloom.sink.errors import DiskFull, SinkError
from peerloom.sink.journal.writer import JournalWriter
from peerloom.sink.layout import SegmentName


@pytest.fixture
def writer(run_dir: Path) -> JournalWriter:
    return JournalWriter(run_dir, "peer", 2, 7)


def said(*rows: int) -> dict[int, list[str]]:
    return {row: [f"{row} at 1"] for row in rows}


def failing(error: int) -> Callable[..., Any]:
    """A system call that fails."""

    def call(*args: Any, **kwargs: Any) -> Any:
        raise OSError(error, os.strerror(error))

    return call


def test_nothing_written_is_no_segment(run_dir: Path, writer: JournalWriter):
    writer.write([], [])
    writer.sync()
    writer.close()
    assert segments(run_dir) == []


def test_what_is_written_can_be_read_at_once(run_dir: Path, writer: JournalWriter):
    put_turns(writer, range(3))
    assert known(run_dir) == said(0, 1, 2)
    put_turns(writer, range(3, 5))
    assert known(run_dir) == said(0, 1, 2, 3, 4)
    assert segments(run_dir) == ["peer-002-0007-0000.jnl"]


def test_one_call_writes_a_pass(writer: JournalWriter, monkeypatch: pytest.MonkeyPatch):
    real, calls = os.pwrite, list[int]()

    def count(fd: int, data: bytes, at: int) -> int:
        calls.append(len(data))
        return real(fd, data, at)

    monkeypatch.setattr(os, "pwrite", count)
    put_turns(writer, range(5000))
    assert len(calls) == 1


def test_a_long_segment_is_followed_by_another(run_dir: Path):
    size = len(turn(0, 1))
    writer = JournalWriter(run_dir, "peer", 2, 7, rotate_bytes=3 * size)
    for row in range(7):
        put_turns(writer, [row])
    assert segments(run_dir) == [f"peer-002-0007-{number:04d}.jnl" for number in range(3)]
    assert known(run_dir) == said(*range(7))


def test_closed_files_are_let_go_by_the_next_sync(run_dir: Path):
    writer = JournalWriter(run_dir, "peer", 2, 7, rotate_bytes=1)
    put_turns(writer, [0])
    put_turns(writer, [1])
    assert open_files(run_dir) == 2
    writer.sync()
    assert open_files(run_dir) == 0
    put_turns(writer, [2])
    writer.close()
    assert open_files(run_dir) == 0
    assert known(run_dir) == said(0, 1, 2)


def test_a_name_that_is_taken_is_refused(run_dir: Path, writer: JournalWriter):
    put_turns(JournalWriter(run_dir, "peer", 2, 7), [0])
    with pytest.raises(SinkError, match=r"peer-002-0007-0000\.jnl could not be written"):
        put_turns(writer, [1])
    assert known(run_dir) == said(0)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("begun", [True, False])
def test_a_full_disk_keeps_nothing_of_a_write_and_it_can_be_tried_again(
    run_dir: Path, writer: JournalWriter, monkeypatch: pytest.MonkeyPatch, begun: bool, error: int
):
    if begun:
        put_turns(writer, range(3))
    pwrite = os.pwrite

    def fill_up(fd: int, data: bytes, at: int) -> int:
        if len(data) > 150:
            return pwrite(fd, data[:150], at)
        raise OSError(error, "full")

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", fill_up)
            with pytest.raises(DiskFull):
                put_turns(writer, range(3, 6))
        assert known(run_dir) == said(*range(3 if begun else 0))
    put_turns(writer, range(3, 6))
    assert known(run_dir) == said(*range(0 if begun else 3, 6))
    assert segments(run_dir) == ["peer-002-0007-0000.jnl"]


def test_a_full_disk_when_a_segment_is_made(
    run_dir: Path, writer: JournalWriter, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing(errno.ENOSPC))
        with pytest.raises(DiskFull):
            put_turns(writer, [1])
    put_turns(writer, [1])
    assert known(run_dir) == said(1)
    assert segments(run_dir) == ["peer-002-0007-0000.jnl"]


def test_a_full_disk_that_cannot_even_be_cut_back(
    run_dir: Path, writer: JournalWriter, monkeypatch: pytest.MonkeyPatch
):
    put_turns(writer, [0])
    pwrite = os.pwrite

    def fill_up(fd: int, data: bytes, at: int) -> int:
        if len(data) > 150:
            return pwrite(fd, data[:150], at)
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fill_up)
        patch.setattr(os, "ftruncate", failing(errno.EIO))
        with pytest.raises(SinkError):
            put_turns(writer, range(1, 6))
    put_turns(writer, range(1, 6))
    assert segments(run_dir) == [f"peer-002-0007-{number:04d}.jnl" for number in range(2)]
    assert known(run_dir) == said(*range(6))


def test_after_another_error_a_new_segment_is_begun(
    run_dir: Path, writer: JournalWriter, monkeypatch: pytest.MonkeyPatch
):
    put_turns(writer, [0])
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", failing(errno.EIO))
        with pytest.raises(SinkError) as raised:
            put_turns(writer, [1])
    assert not isinstance(raised.value, DiskFull)
    put_turns(writer, [1])
    assert known(run_dir) == said(0, 1)
    assert segments(run_dir) == [f"peer-002-0007-{number:04d}.jnl" for number in range(2)]


def test_a_sync_covers_each_write_before_it_once(
    run_dir: Path, writer: JournalWriter, monkeypatch: pytest.MonkeyPatch
):
    synced = list[str]()

    def note(fd: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)

    monkeypatch.setattr(os, "fdatasync", note)
    monkeypatch.setattr(os, "fsync", note)
    put_turns(writer, [0])
    writer.sync()
    assert synced == ["peer-002-0007-0000.jnl", "journal"]
    writer.sync()
    assert len(synced) == 2
    put_turns(writer, [1])
    writer.sync()
    assert synced[2:] == ["peer-002-0007-0000.jnl"]


def test_a_segment_that_was_closed_meanwhile_is_synced(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    synced = list[str]()
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    writer = JournalWriter(run_dir, "peer", 2, 7, rotate_bytes=1)
    for row in range(3):
        put_turns(writer, [row])
    writer.sync()
    assert sorted(Path(name).name for name in synced) == segments(run_dir)


def test_writing_goes_on_during_a_sync_and_is_covered_by_the_next(
    run_dir: Path, writer: JournalWriter, monkeypatch: pytest.MonkeyPatch
):
    entered, leave, synced = Event(), Event(), list[int]()

    def slow(fd: int) -> None:
        synced.append(os.fstat(fd).st_size)
        entered.set()
        assert leave.wait(10)

    monkeypatch.setattr(os, "fdatasync", slow)
    put_turns(writer, [0])
    thread = Thread(target=writer.sync)
    thread.start()
    assert entered.wait(10)
    put_turns(writer, [1])
    leave.set()
    thread.join()
    writer.sync()
    size = SegmentName("peer", 2, 7, 0).path(run_dir).stat().st_size
    assert synced == [size // 2, size]


def test_a_failed_sync_is_never_tried_again_on_the_same_file(
    run_dir: Path, writer: JournalWriter, monkeypatch: pytest.MonkeyPatch
):
    put_turns(writer, [0])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing(errno.EIO))
        with pytest.raises(SinkError, match="durable"):
            writer.sync()
    synced = list[str]()
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    put_turns(writer, [1])
    writer.sync()
    assert [Path(name).name for name in synced] == ["peer-002-0007-0001.jnl"]
    assert known(run_dir) == said(0, 1)


def test_one_failed_sync_does_not_keep_others_from_theirs(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    writer = JournalWriter(run_dir, "peer", 2, 7, rotate_bytes=1)
    for row in range(3):
        put_turns(writer, [row])
    synced = list[str]()

    def fail_first(fd: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)
        if len(synced) == 1:
            raise OSError(errno.EIO, "bad")

    monkeypatch.setattr(os, "fdatasync", fail_first)
    with pytest.raises(SinkError, match="durable"):
        writer.sync()
    assert sorted(synced) == segments(run_dir)


def test_a_folder_that_could_not_be_synced_is_synced_again(
    run_dir: Path, writer: JournalWriter, monkeypatch: pytest.MonkeyPatch
):
    put_turns(writer, [0])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(errno.EIO))
        with pytest.raises(SinkError, match="journal"):
            writer.sync()
    synced = list[int]()
    monkeypatch.setattr(os, "fsync", synced.append)
    writer.sync()
    assert len(synced) == 1


def test_records_and_ids_go_together(run_dir: Path, writer: JournalWriter):
    put(writer, 3, turn(3, 1), turn(3, 2))
    with scanned(run_dir, lambda id: id == task(3)) as memory:
        recalled = memory.pop(task(3))
        assert recalled is not None and recalled.hop == 2
