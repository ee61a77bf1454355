import random

import pytest

from peerloom.errors import CodecError
from peerloom.idset import IdSet, partition_of
from peerloom.task import TaskId


def some_ids(seed: int, count: int = 400) -> set[TaskId]:
    dice = random.Random(seed)
    return {TaskId(dice.randrange(3), dice.randrange(5000), dice.randrange(2)) for _ in range(count)}


def test_behaves_as_a_set():
    ids, known = IdSet(), some_ids(1)
    ids.update(known)
    ids.update(list(known)[:50])
    assert len(ids) == len(known)
    assert set(ids) == known
    assert all(id in ids for id in known)
    assert not any(id in ids for id in some_ids(2) - known)


def test_an_empty_set_holds_nothing():
    assert TaskId(0, 0, 0) not in IdSet()
    assert len(IdSet()) == 0
    assert list(IdSet()) == []


def test_file_row_and_trial_are_told_apart():
    ids = IdSet([TaskId(1, 2, 3)])
    assert TaskId(1, 2, 3) in ids
    for other in (TaskId(0, 2, 3), TaskId(1, 3, 3), TaskId(1, 2, 0), TaskId(1, 2_000_000, 3)):
        assert other not in ids


@pytest.mark.parametrize(("first", "second"), [(3, 4), (5, 5), (6, 0)])
def test_merge_is_union(first: int, second: int):
    left, right = some_ids(first), some_ids(second) if second else set[TaskId]()
    ids, other = IdSet(left), IdSet(right)
    ids.merge(other)
    assert set(ids) == left | right
    assert len(ids) == len(left | right)
    assert set(other) == right
    ids.add(TaskId(9, 9, 9))
    assert TaskId(9, 9, 9) not in other


def test_encoding_round_trips():
    ids = IdSet(some_ids(7))
    again = IdSet.decode(ids.encode())
    assert set(again) == set(ids)
    assert len(again) == len(ids)
    again.add(TaskId(0, 6000, 0))
    assert TaskId(0, 6000, 0) not in ids


@pytest.mark.parametrize("data", [b"", b"\x01", IdSet(some_ids(8)).encode()[:-1]])
def test_what_is_no_set_is_refused(data: bytes):
    with pytest.raises(CodecError, match="task ids"):
        IdSet.decode(data)


def test_a_million_ids_take_bits():
    ids = IdSet(TaskId(0, row, 0) for row in range(100_000))
    assert len(ids.encode()) < 100_000 / 8 + 32


def test_partitions_are_by_row_and_ignore_the_trial():
    assert partition_of(TaskId(2, 5, 0), 4) == 3
    assert partition_of(TaskId(2, 5, 7), 4) == 3
    assert {partition_of(TaskId(0, row, 0), 3) for row in range(9)} == {0, 1, 2}
