import pytest

from peerloom.errors import RunDirError
from peerloom.sink.index import CLOSING, OPENING, VERSION, Group, Opened, frame, read_prefix
from peerloom.sink.totals import AgentTally, Totals
from peerloom.task import TaskId

LARGE = (10_000, 10_000)


def some_groups() -> list[Group]:
    totals = Totals(2, {"completed": 1, "failed": 1}, {"because": 1}, {"teacher": AgentTally(turns=3)})
    return [Group([TaskId(0, n, 0), TaskId(1, n, 2)], 100 * n, 10 * n, totals) for n in range(1, 4)]


def test_groups_are_read_back():
    groups = some_groups()
    data = OPENING + b"".join(map(frame, groups))
    prefix = read_prefix(data, LARGE, "x.idx")
    assert (prefix.groups, prefix.length, prefix.closed, prefix.ends) == (groups, len(data), False, (300, 30))
    assert read_prefix(data + CLOSING, LARGE, "x.idx").closed


def test_an_empty_index_has_nothing():
    prefix = read_prefix(b"", (0, 0), "x.idx")
    assert (prefix.groups, prefix.length, prefix.closed, prefix.ends) == ([], 0, False, (0, 0))


def test_cut_anywhere_it_ends_at_the_last_whole_record():
    groups = some_groups()
    data = OPENING + b"".join(map(frame, groups)) + CLOSING
    bounds = [len(OPENING + b"".join(map(frame, groups[:n]))) for n in range(4)]
    for length in range(len(data)):
        prefix = read_prefix(data[:length], LARGE, "x.idx")
        whole = sum(length >= bound for bound in bounds[1:])
        assert prefix.groups == groups[:whole]
        assert prefix.length == max([0, *(bound for bound in bounds if bound <= length)])
        assert not prefix.closed


def test_a_flipped_bit_anywhere_is_noticed():
    groups = some_groups()
    data = OPENING + b"".join(map(frame, groups)) + CLOSING
    bounds = [len(OPENING + b"".join(map(frame, groups[:n]))) for n in range(4)]
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        prefix = read_prefix(bytes(damaged), LARGE, "x.idx")
        assert prefix.groups == groups[: sum(position >= bound for bound in bounds[1:])]
        assert not prefix.closed


@pytest.mark.parametrize(("sizes", "left"), [((300, 30), 3), ((299, 30), 2), ((300, 29), 2), ((99, 30), 0)])
def test_a_group_beyond_its_files_is_cut(sizes: tuple[int, int], left: int):
    data = OPENING + b"".join(map(frame, some_groups())) + CLOSING
    prefix = read_prefix(data, sizes, "x.idx")
    assert len(prefix.groups) == left
    assert prefix.closed == (left == 3)


def test_what_follows_the_closing_record_is_not_read():
    data = OPENING + CLOSING + b"".join(map(frame, some_groups()))
    prefix = read_prefix(data, LARGE, "x.idx")
    assert (prefix.groups, prefix.length, prefix.closed) == ([], len(OPENING + CLOSING), False)


def test_another_version_says_what_to_do():
    with pytest.raises(
        RunDirError, match=r"x\.idx is of index version 2, but this release reads 1: go on with"
    ):
        read_prefix(frame(Opened(VERSION + 1)), LARGE, "x.idx")


def test_a_record_costs_a_few_bytes_a_row():
    totals = some_groups()[0].totals
    group = Group([TaskId(0, 900_000 + n, 3) for n in range(100)], 2**33, 2**33, totals)
    assert len(frame(group)) < 100 * 9 + 100
