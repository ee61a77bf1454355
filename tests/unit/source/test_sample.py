import pickle

import pytest

from peerloom.source.memory import RowsSource
from peerloom.source.sample import take_sample


def numbered(count: int) -> RowsSource:
    return RowsSource([{"n": number} for number in range(count)])


def test_a_row_of_each_stretch_at_its_own_place() -> None:
    sample, total = take_sample(numbered(1_000), 20, seed=3)
    rows = list(sample.rows(0, 1))
    assert (total, sample.total(), len(rows)) == (1_000, 20, 20)
    assert [row.row // 50 for row in rows] == list(range(20))
    assert all(row.data == {"n": row.row} for row in rows)


def test_the_seed_decides_which() -> None:
    def taken(seed: int) -> list[int]:
        return [row.row for row in take_sample(numbered(1_000), 20, seed)[0].rows(0, 1)]

    assert taken(1) == taken(1) != taken(2)


@pytest.mark.parametrize("count", [0, 1, 5, 20])
def test_a_small_source_is_taken_whole(count: int) -> None:
    sample, total = take_sample(numbered(count), 20, seed=1)
    assert total == count
    assert list(sample.rows(0, 1)) == list(numbered(count).rows(0, 1))


def test_it_is_a_source_in_every_respect() -> None:
    sample, _ = take_sample(numbered(100), 10, seed=1)
    sample = pickle.loads(pickle.dumps(sample))
    whole = list(sample.rows(0, 1))
    parts = [list(sample.rows(partition, 3)) for partition in range(3)]
    assert sorted(row for part in parts for row in part) == whole
    assert all(row.row % 3 == partition for partition, part in enumerate(parts) for row in part)
    wanted = [whole[4], whole[2]]
    assert sample.fetch([(row.file, row.row, row.offset) for row in wanted]) == wanted


def test_other_rows_are_another_source() -> None:
    one, again, other = (take_sample(numbered(100), 10, seed)[0].describe() for seed in (1, 1, 2))
    assert one == again != other
