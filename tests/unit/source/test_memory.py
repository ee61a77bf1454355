import pickle
from collections import OrderedDict
from datetime import date
from types import MappingProxyType
from typing import Any

import pytest

from peerloom.errors import SourceError
from peerloom.source.memory import RowsSource


def test_rows_keep_their_position():
    source = RowsSource([{"n": n} for n in range(7)], key="n")
    assert [(row.file, row.row, row.label) for row in source.rows(0, 1)] == [(0, n, n) for n in range(7)]
    assert [row.row for row in source.rows(1, 3)] == [1, 4]
    assert source.total() == 7
    assert source.describe() == {"kind": "rows", "rows": 7}


def test_fetch_keeps_the_order_asked_for():
    source = RowsSource([{"n": n} for n in range(7)])
    assert [row.data["n"] for row in source.fetch([(0, 5, -1), (0, 0, -1), (0, 5, -1)])] == [5, 0, 5]


def test_limit_is_the_first_rows():
    assert [row.row for row in RowsSource([{}] * 9, limit=4).rows(0, 1)] == [0, 1, 2, 3]
    assert RowsSource([{}] * 9, limit=40).total() == 9
    with pytest.raises(SourceError, match="limit=-2"):
        RowsSource([], limit=-2)


def test_a_row_means_what_it_would_mean_in_a_file():
    given: list[Any] = [MappingProxyType({"pair": (1, 2), "none": None}), OrderedDict(x=0.5)]
    rows = list(RowsSource(given).rows(0, 1))
    assert [row.data for row in rows] == [{"pair": [1, 2], "none": None}, {"x": 0.5}]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"x": object()}, "rows[0].x: of type object, not JSON"),
        ({"x": date(2026, 1, 2)}, "rows[0].x: of type date, not JSON"),
        ({"x": [{1}]}, "rows[0].x[0]: of type set, not JSON"),
        ({"x": float("nan")}, "rows[0].x: nan is not JSON"),
        ({"x": {3: 1}}, "rows[0].x: a key of type int; use only strings as keys"),
        ({"x": 2**70}, "rows[0].x: an integer of more than 64 bits"),
        ({"x": "\ud800"}, "rows[0].x: '\\ud800' holds a lone surrogate"),
        (["x"], "rows[0]: a row must be a JSON object, but this is an array"),
        ({"idd": 1}, "rows[0]: no field 'id' to label the row; did you mean 'idd'?"),
    ],
)
def test_a_bad_row_is_a_row_with_an_error(row: Any, said: str):
    bad, good = RowsSource([row, {"id": 1}], key="id").rows(0, 1)
    assert bad.data is None
    assert said in bad.error
    assert not good.error


def test_travels_by_pickle():
    source = RowsSource([{"n": 1}])
    assert list(pickle.loads(pickle.dumps(source)).rows(0, 1)) == list(source.rows(0, 1))
