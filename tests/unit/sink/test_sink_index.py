from pathlib import Path

import msgspec
import pytest

from peerloom.errors import RunDirError
from peerloom.idset import IdSet
from peerloom.sink.index import (
    OPENING,
    VERSION,
    Closed,
    CommittedGroup,
    Opened,
    closing,
    frame,
    read_closed,
    read_prefix,
    sum_up,
)
from peerloom.sink.totals import AgentTally, Totals
from peerloom.task import TaskId

LARGE = (10_000, 10_000)
ENDS = (300, 30)


def some_groups() -> list[CommittedGroup]:
    totals = Totals(2, {"completed": 1, "failed": 1}, {"because": 1}, {"teacher": AgentTally(turns=3)})
    return [CommittedGroup([TaskId(0, n, 0), TaskId(1, n, 2)], 100 * n, 10 * n, totals) for n in range(1, 4)]


def closing_record() -> Closed:
    return sum_up(some_groups(), ENDS)


def closed_index() -> bytes:
    return OPENING + b"".join(map(frame, some_groups())) + closing(closing_record())


def bounds() -> list[int]:
    """Where the opening record and each group end."""
    return [len(OPENING + b"".join(map(frame, some_groups()[:n]))) for n in range(4)]


def test_groups_are_read_back():
    groups = some_groups()
    data = OPENING + b"".join(map(frame, groups))
    prefix = read_prefix(data, LARGE, "x.idx")
    assert (prefix.groups, prefix.length, prefix.ends) == (groups, len(data), ENDS)
    assert read_prefix(closed_index(), LARGE, "x.idx") == prefix


def test_a_closing_record_in_another_encoding_leaves_the_groups_to_be_read(tmp_path: Path):
    path = tmp_path / "x.idx"
    path.write_bytes(closed_index())
    assert read_closed(path, ENDS) == closing_record()
    earlier = msgspec.defstruct("Closed", [], bases=(Closed,), array_like=True, frozen=True, tag="closed")
    record = earlier(*msgspec.structs.astuple(closing_record()))
    path.write_bytes(OPENING + b"".join(map(frame, some_groups())) + closing(record))
    assert read_closed(path, ENDS) is None
    assert read_prefix(path.read_bytes(), LARGE, "x.idx").groups == some_groups()


def test_an_empty_index_has_nothing():
    prefix = read_prefix(b"", (0, 0), "x.idx")
    assert (prefix.groups, prefix.length, prefix.ends) == ([], 0, (0, 0))


def test_groups_are_summed_up():
    record = closing_record()
    assert set(IdSet.decode(record.ids)) == {id for group in some_groups() for id in group.ids}
    assert record.totals == Totals(
        6, {"completed": 3, "failed": 3}, {"because": 3}, {"teacher": AgentTally(turns=9)}
    )


def test_a_closing_record_is_found_from_the_end(tmp_path: Path):
    path = tmp_path / "x.idx"
    path.write_bytes(closed_index())
    assert read_closed(path, ENDS) == closing_record()
    path.write_bytes(b"groups that nobody can read" + closing(closing_record()))
    assert read_closed(path, ENDS) == closing_record()


@pytest.mark.parametrize("sizes", [(299, 30), (301, 30), (300, 29), (300, 31)])
def test_a_closing_record_holds_only_for_its_files(tmp_path: Path, sizes: tuple[int, int]):
    path = tmp_path / "x.idx"
    path.write_bytes(closed_index())
    assert read_closed(path, sizes) is None


def test_an_index_that_is_cut_or_goes_on_is_not_closed(tmp_path: Path):
    path, whole = tmp_path / "x.idx", closed_index()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert read_closed(path, ENDS) is None
    for more in (b"\0", bytes(40), whole[-12:]):
        path.write_bytes(whole + more)
        assert read_closed(path, ENDS) is None


def test_a_flipped_bit_in_the_closing_record_or_trailer_is_noticed(tmp_path: Path):
    path, whole = tmp_path / "x.idx", closed_index()
    for position in range(bounds()[-1], len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            assert read_closed(path, ENDS) is None
            assert len(read_prefix(bytes(damaged), LARGE, "x.idx").groups) == 3


def test_no_index_is_an_error_of_its_own(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        read_closed(tmp_path / "x.idx", (0, 0))


def test_cut_anywhere_it_ends_at_the_last_whole_group():
    groups, data = some_groups(), closed_index()
    for length in range(len(data)):
        prefix = read_prefix(data[:length], LARGE, "x.idx")
        assert prefix.groups == groups[: sum(length >= bound for bound in bounds()[1:])]
        assert prefix.length == max([0, *(bound for bound in bounds() if bound <= length)])


def test_a_flipped_bit_anywhere_is_noticed():
    groups, data = some_groups(), closed_index()
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        prefix = read_prefix(bytes(damaged), LARGE, "x.idx")
        assert prefix.groups == groups[: sum(position >= bound for bound in bounds()[1:])]


@pytest.mark.parametrize(("sizes", "left"), [((300, 30), 3), ((299, 30), 2), ((300, 29), 2), ((99, 30), 0)])
def test_a_group_beyond_its_files_is_cut(sizes: tuple[int, int], left: int):
    assert len(read_prefix(closed_index(), sizes, "x.idx").groups) == left


def test_what_follows_the_closing_record_is_not_read():
    data = OPENING + closing(closing_record()) + b"".join(map(frame, some_groups()))
    prefix = read_prefix(data, LARGE, "x.idx")
    assert (prefix.groups, prefix.length) == ([], len(OPENING))


def test_another_version_says_what_to_do():
    with pytest.raises(
        RunDirError, match=r"x\.idx is of index version 3, but this release reads 2: resume it with"
    ):
        read_prefix(frame(Opened(VERSION + 1)), LARGE, "x.idx")


def test_a_record_costs_a_few_bytes_a_row():
    totals = some_groups()[0].totals
    group = CommittedGroup([TaskId(0, 900_000 + n, 3) for n in range(100)], 2**33, 2**33, totals)
    assert len(frame(group)) < 100 * 9 + 100
    assert len(closing(sum_up([group], ENDS))) < 100 / 8 + 200
