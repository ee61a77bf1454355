"""Compaction: what nobody needs goes, what is live stays, whoever wrote it."""

import errno
import os
import random
from pathlib import Path
from threading import Event, Thread

import pytest
from journal_helpers import call, known, put, put_turns, raw, scanned, segments, task, texts, turn

from peerloom.sink.errors import DiskFull, SinkError
from peerloom.sink.journal.records import base_record, turn_record
from peerloom.sink.journal.writer import JournalWriter
from peerloom.sink.layout import SegmentName
from peerloom.task import Header, TaskId

SIZE = len(turn(10, 1))


def rows(ids: list[TaskId]) -> list[int]:
    return [id.row for id in ids]


def writer_of(run_dir: Path, numbers: range, *, per_segment: int = 8) -> JournalWriter:
    """A writer with a turn of each of these rows, so many to a segment."""
    writer = JournalWriter(run_dir, "peer", 0, 1, rotate_bytes=per_segment * SIZE)
    for row in numbers:
        put_turns(writer, [row])
    return writer


def compact(writer: JournalWriter) -> int:
    """Copy until nothing is worth it; returns how many segments were."""
    copied = 0
    while copying := writer.begin_copy():
        copying.read()
        writer.write_copy(copying)
        writer.sync()
        assert writer.end_copy(copying)
        copied += 1
    return copied


def test_only_tasks_of_closed_segments_are_asked_about_oldest_first(run_dir: Path):
    writer = writer_of(run_dir, range(10, 30))
    assert rows(writer.closed_ids(100)) == list(range(10, 26))


def test_all_are_asked_about_in_turn(run_dir: Path):
    writer = writer_of(run_dir, range(10, 30))
    assert rows(writer.closed_ids(10)) == list(range(10, 20))
    assert rows(writer.closed_ids(10)) == [*range(20, 26), *range(10, 14)]


def test_a_closed_segment_without_live_tasks_is_unlinked(run_dir: Path):
    writer = writer_of(run_dir, range(10, 30))
    writer.settle(map(task, range(10, 17)))
    assert len(segments(run_dir)) == 3
    writer.settle([task(17)])
    assert segments(run_dir) == ["peer-000-0001-0001.jnl", "peer-000-0001-0002.jnl"]
    assert sorted(known(run_dir)) == list(range(18, 30))
    assert rows(writer.closed_ids(100)) == list(range(18, 26))
    writer.settle([task(17), task(9999)])


def test_a_segment_whose_tasks_are_done_when_it_is_closed_is_not_kept(run_dir: Path):
    writer = writer_of(run_dir, range(10, 17))
    writer.settle(map(task, range(10, 17)))
    put_turns(writer, [17])
    writer.settle([task(17)])
    assert segments(run_dir) == []
    assert writer.closed_ids(100) == []


def test_a_task_in_several_segments_keeps_them_until_it_is_done(run_dir: Path):
    writer = JournalWriter(run_dir, "peer", 0, 1, rotate_bytes=1)
    for hop in (1, 2, 3):
        put(writer, 5, turn(5, hop))
    assert rows(writer.closed_ids(100)) == [5]
    writer.settle([task(5)])
    assert segments(run_dir) == []


def test_little_garbage_is_left_alone(run_dir: Path):
    writer = writer_of(run_dir, range(10, 26))
    writer.settle(map(task, range(10, 16)))
    assert writer.begin_copy() is None


def test_what_is_live_in_a_segment_of_garbage_moves_on(run_dir: Path):
    writer = writer_of(run_dir, range(10, 26))
    writer.settle(map(task, range(11, 18)))
    assert compact(writer) == 1
    assert segments(run_dir) == ["peer-000-0001-0001.jnl", "peer-000-0001-0002.jnl"]
    assert sorted(known(run_dir)) == [10, *range(18, 26)]
    assert rows(writer.closed_ids(100)) == list(range(18, 26))


def test_a_copy_is_byte_for_byte(run_dir: Path):
    writer = JournalWriter(run_dir, "peer", 0, 1, rotate_bytes=2000)
    records = [call(1, 0), call(1, 0), turn(1, 1), base_record(Header(task(1), 9, 1), [raw("b")], [])]
    put(writer, 1, *records)
    put(writer, 2, turn(2, 1, "x" * 3000))
    writer.settle([task(2)])
    assert compact(writer) == 1
    assert [path.read_bytes() for path in (run_dir / ".peerloom/journal").iterdir()] == [b"".join(records)]


def test_what_was_settled_while_it_was_read_is_not_copied(run_dir: Path):
    writer = writer_of(run_dir, range(10, 18), per_segment=8)
    writer.settle(map(task, range(11, 18)))
    copying = writer.begin_copy()
    assert copying is not None
    copying.read()
    writer.settle([task(10)])
    writer.write_copy(copying)
    assert writer.end_copy(copying)
    assert segments(run_dir) == []


def test_until_the_copy_is_safe_the_segment_stays(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    writer = writer_of(run_dir, range(10, 18))
    writer.settle(map(task, range(11, 18)))
    copying = writer.begin_copy()
    assert copying is not None
    copying.read()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(DiskFull):
            writer.write_copy(copying)
    writer.write_copy(copying)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "bad")))
        with pytest.raises(SinkError):
            writer.sync()
    assert not writer.end_copy(copying)
    assert segments(run_dir) == ["peer-000-0001-0000.jnl", "peer-000-0001-0001.jnl"]
    assert 10 in known(run_dir)


def test_what_could_not_be_synced_is_copied_however_live(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    writer = writer_of(run_dir, range(10, 14))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "bad")))
        with pytest.raises(SinkError):
            writer.sync()
    put_turns(writer, [14])
    assert compact(writer) == 1
    assert segments(run_dir) == ["peer-000-0001-0001.jnl"]
    assert sorted(known(run_dir)) == list(range(10, 15))


def test_a_segment_that_another_adopter_has_removed_is_nothing(run_dir: Path):
    writer = writer_of(run_dir, range(10, 18))
    writer.settle(map(task, range(11, 18)))
    SegmentName("peer", 0, 1, 0).path(run_dir).unlink()
    assert compact(writer) == 1
    assert segments(run_dir) == []


def test_compaction_keeps_exactly_what_is_live(run_dir: Path):
    seeded = random.Random(5)
    writer = JournalWriter(run_dir, "peer", 0, 1, rotate_bytes=2000)
    said: dict[int, list[str]] = {}
    for row in range(400):
        said[row] = []
        for other in seeded.sample(sorted(said), k=min(3, len(said))):
            said[other].append(f"{other} at {len(said[other]) + 1}")
            hop = len(said[other])
            writer.write([turn(other, hop)], [task(other)])
        if row % 20 == 0:
            writer.sync()
            asked = rows(writer.closed_ids(50))
            done = [other for other in asked if seeded.random() < 0.9]
            for other in done:
                del said[other]
            writer.settle(map(task, done))
            compact(writer)
            wanted = {other: turns for other, turns in said.items() if turns}
            with scanned(run_dir) as memory:
                assert {other: texts(memory.pop(task(other))) for other in wanted} == wanted
                assert memory.damaged == 0
    writer.close()


def test_a_scan_during_compaction_finds_all_that_is_live(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    writer = JournalWriter(run_dir, "peer", 0, 1, rotate_bytes=1000)
    put_turns(writer, range(5))
    enough, copied = Event(), 0

    def churn() -> None:
        nonlocal copied
        number = 100
        while not enough.is_set():
            put_turns(writer, range(number, number + 20))
            writer.settle(map(task, range(number, number + 20)))
            copied += compact(writer)
            number += 20

    thread = Thread(target=churn)
    thread.start()
    try:
        for _ in range(100):
            with scanned(run_dir, lambda id: id.row < 5) as memory:
                assert [texts(memory.pop(task(row))) for row in range(5)] == [
                    [f"{row} at 1"] for row in range(5)
                ]
                assert memory.damaged == 0
    finally:
        enough.set()
        thread.join()
    assert copied > 10


def test_segments_of_the_dead_are_adopted(run_dir: Path):
    for index, incarnation in [(0, 1), (1, 1), (2, 1), (3, 1), (0, 3)]:
        put_turns(JournalWriter(run_dir, "peer", index, incarnation), [10 * index + incarnation])
    put_turns(JournalWriter(run_dir, "feeder", 0, 1), [99])
    writer = JournalWriter(run_dir, "peer", 0, 2)
    put_turns(writer, [2])
    orphans = writer.orphans(2)
    assert [orphan.name[:3] for orphan in orphans] == [("peer", 0, 1), ("peer", 2, 1)]
    writer.adopt(orphans)
    writer.adopt(orphans)
    assert rows(writer.closed_ids(100)) == [1, 21]
    assert writer.orphans(2) == []
    writer.settle([task(1), task(21)])
    assert sorted(known(run_dir)) == [2, 3, 11, 31, 99]


def test_adopted_segments_are_compacted(run_dir: Path):
    writer_of(run_dir, range(10, 18)).close()
    writer = JournalWriter(run_dir, "peer", 0, 2)
    writer.adopt(writer.orphans(1))
    writer.settle(map(task, range(11, 18)))
    assert compact(writer) == 1
    assert segments(run_dir) == ["peer-000-0002-0000.jnl"]
    assert sorted(known(run_dir)) == [10]


def test_an_empty_or_ruined_orphan_is_unlinked(run_dir: Path):
    for incarnation, content in [(1, b""), (2, b"ruined")]:
        SegmentName("peer", 0, incarnation, 0).path(run_dir).write_bytes(content)
    writer = JournalWriter(run_dir, "peer", 0, 3)
    writer.adopt(writer.orphans(1))
    assert segments(run_dir) == []


def test_what_is_damaged_is_not_copied(run_dir: Path):
    writer = JournalWriter(run_dir, "peer", 0, 1, rotate_bytes=2000)
    good, bad = turn(1, 1), bytearray(turn(1, 2))
    bad[-6] ^= 1
    filler = turn_record(Header(task(2), 1, 1), [raw("x" * 3000)])
    writer.write([good, bytes(bad), filler], [task(1), task(1), task(2)])
    writer.settle([task(2)])
    assert compact(writer) == 1
    assert [path.read_bytes() for path in (run_dir / ".peerloom/journal").iterdir()] == [good]
