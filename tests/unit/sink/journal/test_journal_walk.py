"""Damage to a segment costs the records it touched, and no other."""

from collections.abc import Callable
from pathlib import Path

import pytest
from journal_helpers import call, known, scanned, task, texts, turn

from peerloom.sink.journal.records import HEAD, LENGTH_MASK, MARKER, OVERHEAD
from peerloom.sink.layout import SegmentName
from peerloom.task import TaskId

ROWS = range(6)
RECORDS = [turn(row, 1) for row in ROWS]


def read(run_dir: Path, data: bytes, wants: Callable[[TaskId], bool]) -> tuple[dict[int, list[str]], int]:
    """What a segment of these bytes says of each row, and at how many places it is damaged."""
    SegmentName("peer", 0, 1, 0).path(run_dir).write_bytes(data)
    with scanned(run_dir, wants) as memory:
        return {id.row: texts(memory.pop(id)) for id in list(memory.ids())}, memory.damaged


def everything(_: TaskId) -> bool:
    return True


def even(id: TaskId) -> bool:
    return id.row % 2 == 0


def said(*rows: int) -> dict[int, list[str]]:
    return {row: [f"{row} at 1"] for row in rows}


@pytest.mark.parametrize("wants", [everything, even])
def test_a_tail_torn_at_any_byte_costs_the_last_record_only(run_dir: Path, wants: Callable[[TaskId], bool]):
    whole = b"".join(RECORDS[:5])
    before = said(*(row for row in range(4) if wants(task(row))))
    for length in range(len(RECORDS[4])):
        torn = whole[: len(whole) - len(RECORDS[4]) + length]
        assert read(run_dir, torn, wants) == (before, 0), length
    assert read(run_dir, whole, wants) == ({**before, **said(4)}, 0)


@pytest.mark.parametrize("wants", [everything, even])
@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_a_flipped_byte_anywhere_costs_one_record(run_dir: Path, wants: Callable[[TaskId], bool], flip: int):
    whole = b"".join(RECORDS)
    hit = [row for row, record in enumerate(RECORDS) for _ in record]
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= flip
        found, places = read(run_dir, bytes(damaged), wants)
        spared = [row for row in ROWS if wants(task(row)) and row != hit[position]]
        assert found == said(*spared), position
        assert places == 1 if wants is everything else places <= 1, position


@pytest.mark.parametrize("garbage", [b"\0" * 100, b"x", MARKER, MARKER * 20, b"x" * 5000, RECORDS[0][:-1]])
def test_garbage_between_records_costs_nothing(run_dir: Path, garbage: bytes):
    data = garbage.join([b"", *RECORDS])
    found, places = read(run_dir, data, everything)
    assert (found, places) == (said(*ROWS), len(ROWS))


def test_records_that_others_overwrote_the_end_of(run_dir: Path):
    torn = turn(7, 1, "x" * 300)[:200]  # its head promises more, and others were written behind it
    for wants in (everything, even):
        found, places = read(run_dir, torn + b"".join(RECORDS), wants)
        assert (found, places) == (said(*filter(lambda row: wants(task(row)), ROWS)), 1)


@pytest.mark.parametrize("length", [2**32 - 1, 2**31, 10_000])
@pytest.mark.parametrize("wants", [everything, even])
def test_a_huge_length_hides_nothing(run_dir: Path, wants: Callable[[TaskId], bool], length: int):
    head = HEAD.pack(MARKER, length, length ^ LENGTH_MASK, 1, 0, 1, 0, 1, 1, 0)
    found, places = read(run_dir, RECORDS[0] + head + b"".join(RECORDS[1:]), wants)
    assert (found, places) == (said(*filter(lambda row: wants(task(row)), ROWS)), 1)


def test_a_length_that_ends_at_another_record_hides_none(run_dir: Path):
    length = 2 * len(RECORDS[1]) - OVERHEAD
    damaged = RECORDS[1][:4] + length.to_bytes(4, "little") + RECORDS[1][8:]
    found, places = read(run_dir, b"".join([RECORDS[0], damaged, *RECORDS[2:]]), even)
    assert (found, places) == (said(0, 2, 4), 1)


def test_an_empty_segment_is_no_damage(run_dir: Path):
    assert read(run_dir, b"", everything) == ({}, 0)


def test_a_segment_of_another_format_is_damage_and_not_read(run_dir: Path):
    other = MARKER[:-1] + b"\x01" + RECORDS[0][4:]
    assert read(run_dir, other + RECORDS[1], everything) == (said(1), 1)


def test_a_record_inside_a_reply_is_no_record(run_dir: Path):
    # As latin-1 text it is not the same bytes in UTF-8, so no model can say one.
    text = RECORDS[3].decode("latin-1")
    data = turn(9, 1, text) + call(9, 1)
    assert MARKER not in data[4:-100]
    SegmentName("peer", 0, 1, 0).path(run_dir).write_bytes(data)
    assert known(run_dir) == {9: [text]}
