import random

import pytest

from peerloom.errors import CodecError
from peerloom.idset import IdSet, partition_of
from peerloom.task import TaskId

NO_BITMAP = b"\x91\x93\x00\x00\xc4\x01\x01"


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


@pytest.mark.parametrize("data", [b"", b"\x01", NO_BITMAP, IdSet(some_ids(8)).encode()[:-1]])
def test_what_is_no_set_is_refused(data: bytes):
    with pytest.raises(CodecError, match="task ids"):
        IdSet.decode(data)


def test_a_million_ids_take_bits():
    ids = IdSet(TaskId(0, row, 0) for row in range(100_000))
    assert len(ids.encode()) < 100_000 / 8 + 32


def test_a_few_ids_take_a_few_bytes_wherever_they_are():
    ids = IdSet(TaskId(0, row, 0) for row in range(900_000, 900_800))
    assert len(ids.encode()) < 100 + 32
    ids.add(TaskId(0, 7, 0))
    assert len(ids.encode()) < 100 + 40
    assert set(IdSet.decode(ids.encode())) == set(ids)


def random_ids(dice: random.Random) -> set[TaskId]:
    """Runs of neighbours, near and far from one another, as a run leaves them; and some strays."""
    ids: set[TaskId] = set()
    for _ in range(dice.randrange(6)):
        file, trial, begin = dice.randrange(2), dice.randrange(2), dice.choice([0, 1, 63, 64, 900, 20_000])
        step = dice.choice([1, 1, 2, 7, 64, 65, 72, 100])
        ids |= {TaskId(file, begin + step * n, trial) for n in range(dice.randrange(40))}
    return ids


@pytest.mark.parametrize("seed", range(60))
def test_behaves_as_a_set_whatever_is_done_to_it(seed: int):
    dice = random.Random(seed)
    ids, known = IdSet(), set[TaskId]()
    for _ in range(6):
        more = random_ids(dice)
        match dice.randrange(4):
            case 0:
                ids.update(more)
            case 1:
                ids.merge(IdSet(more))
            case 2:
                ids.merge_encoded(IdSet(more).encode())
            case _:
                ids = IdSet.decode(ids.encode())
                more = set[TaskId]()
        known |= more
        assert len(ids) == len(known)
        assert set(ids) == set(IdSet.decode(ids.encode())) == known
        start, trials = dice.randrange(1100), dice.randrange(1, 4)
        stop = start + dice.randrange(1100)
        assert ids.missing(1, start, stop, trials) == [
            row
            for row in range(start, stop)
            if any(TaskId(1, row, trial) not in known for trial in range(trials))
        ]


def test_partitions_are_by_row_and_ignore_the_trial():
    assert partition_of(TaskId(2, 5, 0), 4) == 3
    assert partition_of(TaskId(2, 5, 7), 4) == 3
    assert {partition_of(TaskId(0, row, 0), 3) for row in range(9)} == {0, 1, 2}
