"""What is recalled of a task: the chain of one attempt that came farthest."""

import os
from pathlib import Path

import pytest
from journal_helpers import (
    call,
    digests,
    header,
    known,
    open_files,
    put,
    put_turns,
    raw,
    scanned,
    segments,
    task,
    texts,
    turn,
)

from peerloom.sink.errors import SinkError
from peerloom.sink.journal.index import RecoveredTask
from peerloom.sink.journal.records import base_record, call_record, turn_record
from peerloom.sink.journal.writer import JournalWriter
from peerloom.sink.layout import JOURNAL, SegmentName
from peerloom.task import Header, SavedCall, TaskId


def base(row: int, hop: int, calls: list[str], attempt: int) -> bytes:
    saved = [SavedCall(text.encode(), b"") for text in calls]
    return base_record(header(row, hop, attempt), [raw(f"base {number + 1}") for number in range(hop)], saved)


def recall(run_dir: Path, *records: bytes) -> RecoveredTask | None:
    writer = JournalWriter(run_dir, "peer", 0, 1)
    put(writer, 7, *records)
    writer.close()
    with scanned(run_dir) as memory:
        return memory.pop(task(7))


def test_turns_and_calls_come_back_as_they_were(run_dir: Path):
    id = TaskId(3, 2**40, 5)
    two = [raw("first"), raw("second")]
    calls = [SavedCall(b"d1", b"r1"), SavedCall(b"d2", b"r2")]
    writer = JournalWriter(run_dir, "peer", 4, 1_000_001)
    at_two = Header(id, 2_000_003, 2)
    records = [
        turn_record(at_two._replace(hop=1), two),
        turn_record(at_two, []),
        *(call_record(at_two, saved) for saved in calls),
    ]
    writer.write(records, [id] * 4)
    writer.close()
    assert segments(run_dir) == ["peer-004-1000001-0000.jnl"]
    with scanned(run_dir) as memory:
        assert (len(memory), list(memory.ids()), id in memory) == (1, [id], True)
        assert memory.pop(id) == RecoveredTask(2_000_003, 2, two, calls)
        assert (len(memory), id in memory, memory.pop(id)) == (0, False, None)


def test_only_wanted_tasks_are_remembered(run_dir: Path):
    writer = JournalWriter(run_dir, "peer", 0, 1)
    put_turns(writer, range(10))
    with scanned(run_dir, lambda id: id.row % 5 == 0) as memory:
        assert [id.row for id in memory.ids()] == [0, 5]
        assert texts(memory.pop(task(5))) == ["5 at 1"]


def test_equal_calls_stay_as_many_as_they_were(run_dir: Path):
    assert digests(recall(run_dir, call(7, 0), call(7, 0), call(7, 0))) == ["yes"] * 3


def test_a_record_that_is_there_twice_counts_once(run_dir: Path):
    records = [turn(7, 1), call(7, 1), call(7, 1)]
    recalled = recall(run_dir, *records, *records)
    assert (texts(recalled), digests(recalled)) == (["7 at 1"], ["yes"] * 2)


def test_the_chain_ends_at_a_gap(run_dir: Path):
    recalled = recall(run_dir, turn(7, 1), turn(7, 3), call(7, 1, "good"), call(7, 3, "beyond"))
    assert (texts(recalled), digests(recalled)) == (["7 at 1"], ["good"])


def test_calls_of_finished_turns_are_left_out(run_dir: Path):
    recalled = recall(run_dir, call(7, 0, "old"), turn(7, 1), call(7, 1, "new"))
    assert (texts(recalled), digests(recalled)) == (["7 at 1"], ["new"])


def test_an_attempt_goes_on_from_its_base(run_dir: Path):
    recalled = recall(run_dir, base(7, 2, ["old"], 5), turn(7, 3, attempt=5), call(7, 3, "new", 5))
    assert recalled is not None and (recalled.attempt, recalled.hop) == (5, 3)
    assert (texts(recalled), digests(recalled)) == (["base 1", "base 2", "7 at 3"], ["new"])


def test_calls_in_the_base_count_if_the_chain_ends_there(run_dir: Path):
    recalled = recall(run_dir, base(7, 2, ["a", "b"], 5), call(7, 2, "c", 5))
    assert (texts(recalled), digests(recalled)) == (["base 1", "base 2"], ["a", "b", "c"])


def test_without_its_base_an_attempt_is_nothing(run_dir: Path):
    recalled = recall(run_dir, turn(7, 1), turn(7, 3, attempt=5), turn(7, 2, attempt=5))
    assert recalled is not None and (recalled.attempt, texts(recalled)) == (1, ["7 at 1"])


@pytest.mark.parametrize(
    ("records", "attempt"),
    [
        ([turn(7, 1), turn(7, 2), turn(7, 1, attempt=9), call(7, 1, attempt=9)], 1),
        ([turn(7, 1), call(7, 1), call(7, 1), turn(7, 1, attempt=9), call(7, 1, attempt=9)], 1),
        ([turn(7, 1), call(7, 1), base(7, 1, ["x", "y"], 9)], 9),
        ([turn(7, 1), call(7, 1), base(7, 1, ["x"], 9)], 9),
        ([turn(7, 1, attempt=9), turn(7, 1)], 9),
    ],
    ids=["farthest hop", "most calls", "calls of a base", "newest, with a base", "newest"],
)
def test_which_attempt_is_taken(run_dir: Path, records: list[bytes], attempt: int):
    recalled = recall(run_dir, *records)
    assert recalled is not None and recalled.attempt == attempt


def test_attempts_are_never_mixed(run_dir: Path):
    recalled = recall(run_dir, turn(7, 1), turn(7, 2, attempt=9), call(7, 1, attempt=9))
    assert recalled is not None
    assert (recalled.attempt, texts(recalled), recalled.calls) == (1, ["7 at 1"], [])


def test_nothing_is_built_on_a_turn_that_was_made_twice(run_dir: Path):
    recalled = recall(run_dir, turn(7, 1, "one"), turn(7, 1, "other"), turn(7, 2), call(7, 1))
    assert (texts(recalled), digests(recalled)) == (["one"], ["yes"])


def several(row: int, first: int, last: int, text: str = "") -> bytes:
    """The record of the hops from `first` to `last`, of a turn each."""
    hops = range(first, last + 1)
    return turn_record(header(row, last), [raw(text or f"{row} at {hop}") for hop in hops], len(hops))


def test_hops_in_one_record_are_a_part_of_the_chain(run_dir: Path):
    records = [
        turn(7, 1),
        several(7, 2, 4),
        turn(7, 5),
        several(7, 6, 7),
        call(7, 7, "new"),
        call(7, 6, "old"),
    ]
    recalled = recall(run_dir, *records)
    assert recalled is not None and recalled.hop == 7
    assert (texts(recalled), digests(recalled)) == ([f"7 at {hop}" for hop in range(1, 8)], ["new"])


def test_of_hops_that_were_made_twice_the_longer_record_counts_and_nothing_after_it(run_dir: Path):
    records = [turn(7, 1, "one"), several(7, 1, 3, "other"), turn(7, 2, "two"), turn(7, 4)]
    assert texts(recall(run_dir, *records)) == ["other"] * 3


@pytest.mark.parametrize("records", [[], [turn(7, 2)], [several(7, 2, 3)], [base(7, 0, [], 5)], [call(7, 4)]])
def test_nothing_of_use_is_none(run_dir: Path, records: list[bytes]):
    assert recall(run_dir, *records) is None


def test_a_chain_goes_through_the_segments_of_several_members(run_dir: Path):
    for hop in (1, 2, 3):
        put(JournalWriter(run_dir, "peer", 3 - hop, 1), 7, turn(7, hop))
    put(JournalWriter(run_dir, "feeder", 0, 1), 8, base(8, 1, [], 4))
    assert known(run_dir) == {7: ["7 at 1", "7 at 2", "7 at 3"], 8: ["base 1"]}


def test_a_missing_segment_costs_what_follows_it(run_dir: Path):
    for hop in (1, 2, 3):
        put(JournalWriter(run_dir, "peer", hop, 1), 7, turn(7, hop))
    SegmentName("peer", 2, 1, 0).path(run_dir).unlink()
    assert known(run_dir) == {7: ["7 at 1"]}


def test_a_missing_folder_is_an_empty_journal(tmp_path: Path):
    assert known(tmp_path) == {}


def test_a_record_of_something_else_is_damage(run_dir: Path):
    wrong = turn_record(header(7, 2), ["no turn"])  # pyright: ignore
    writer = JournalWriter(run_dir, "peer", 0, 1)
    put(writer, 7, turn(7, 1), wrong, turn(7, 3))
    with scanned(run_dir) as memory:
        assert texts(memory.pop(task(7))) == ["7 at 1"]
        assert memory.damaged == 1


@pytest.mark.parametrize("now", [turn(7, 2)[:-1], turn(8, 2), turn(7, 2).replace(b"7 at", b"8 at")])
def test_what_changed_since_the_scan_is_damage(run_dir: Path, now: bytes):
    writer = JournalWriter(run_dir, "peer", 0, 1)
    put(writer, 7, turn(7, 1), turn(7, 2))
    path = SegmentName("peer", 0, 1, 0).path(run_dir)
    with scanned(run_dir) as memory:
        os.truncate(path, len(turn(7, 1)))
        with path.open("ab") as segment:
            segment.write(now)
        assert texts(memory.pop(task(7))) == ["7 at 1"]
        assert memory.damaged == 1


def test_what_is_unlinked_after_the_scan_is_still_recalled(run_dir: Path):
    writer = JournalWriter(run_dir, "peer", 0, 1)
    put_turns(writer, range(3))
    writer.close()
    with scanned(run_dir) as memory:
        SegmentName("peer", 0, 1, 0).path(run_dir).unlink()
        assert [texts(memory.pop(task(row))) for row in range(3)] == [[f"{row} at 1"] for row in range(3)]


def test_a_file_is_open_for_as_long_as_something_in_it_is_remembered(run_dir: Path):
    for index in range(3):
        writer = JournalWriter(run_dir, "peer", index, 1)
        put_turns(writer, [2 * index, 2 * index + 1])
        writer.close()
    with scanned(run_dir, lambda id: id.row > 1) as memory:
        assert open_files(run_dir) == 2
        memory.pop(task(2))
        assert open_files(run_dir) == 2
        memory.pop(task(3))
        assert open_files(run_dir) == 1
    assert open_files(run_dir) == 0


def test_compaction_while_segments_are_opened_loses_nothing(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    writer = JournalWriter(run_dir, "peer", 1, 1, rotate_bytes=1)
    put(writer, 7, turn(7, 1))
    mover = JournalWriter(run_dir, "peer", 0, 1)
    put(mover, 8, turn(8, 1))
    real = os.open
    moves = [(SegmentName("peer", 1, 1, 0), SegmentName("peer", 0, 2, 0))]

    def open_late(path: Path, *args: int) -> int:
        if path == moves[0][0].path(run_dir) and path.exists():
            path.rename(moves[0][1].path(run_dir))  # its records are in a segment nobody has listed
        return real(path, *args)

    monkeypatch.setattr(os, "open", open_late)
    assert known(run_dir) == {7: ["7 at 1"], 8: ["8 at 1"]}
    assert segments(run_dir) == ["peer-000-0001-0000.jnl", "peer-000-0002-0000.jnl"]


def test_a_journal_that_never_stands_still_is_an_error(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    writer = JournalWriter(run_dir, "peer", 0, 1, rotate_bytes=1)
    put(writer, 7, turn(7, 1))
    real = os.open

    def open_and_grow(path: Path, flags: int, *mode: int) -> int:
        if flags & os.O_ACCMODE == os.O_RDONLY:
            put(writer, 7, turn(7, 1))
        return real(path, flags, *mode)

    monkeypatch.setattr(os, "open", open_and_grow)
    with pytest.raises(SinkError, match="faster"):
        known(run_dir)
    writer.close()
    assert open_files(run_dir) == 0


def test_a_segment_that_cannot_be_opened_is_named(run_dir: Path):
    path = run_dir / JOURNAL / "peer-000-0001-0000.jnl"
    path.symlink_to(path)
    with pytest.raises(SinkError, match=r"peer-000-0001-0000\.jnl"):
        known(run_dir)
