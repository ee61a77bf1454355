"""Parquet: what its values become, what damage costs, and what is not read."""

import datetime
import decimal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kinds import parquet

from peerloom.errors import SourceError
from peerloom.source.base import SourceRow
from peerloom.source.formats import parquet as module
from peerloom.source.open import open_source


def read(path: Path) -> list[SourceRow]:
    return list(open_source(path).rows(0, 1))


def test_values_become_those_of_json(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    row = {
        "int": 2**60, "float": 0.5, "nan": float("nan"), "none": None, "bool": True, "text": "é",
        "bytes": "é".encode(), "list": [1, 2], "struct": {"a": {"b": [None, "x"]}},
        "day": datetime.date(2026, 11, 25), "time": datetime.datetime(2026, 11, 25, 20, 0, 1),
        "decimal": decimal.Decimal("1.50"),
    }  # fmt: skip
    pq.write_table(pa.Table.from_pylist([row]), path)
    (found,) = read(path)
    assert found.data == row | {
        "nan": None, "bytes": "é", "day": "2026-11-25", "time": "2026-11-25T20:00:01", "decimal": "1.50",
    }  # fmt: skip


def test_bytes_that_are_no_text_are_a_bad_row_that_names_the_column(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    parquet(path, [{"n": 0, "image": b"\xff\xd8"}, {"n": 1, "image": b"text"}])
    bad, good = read(path)
    assert f"{path}:1: field 'image' cannot be written as JSON" in bad.error
    assert "no UTF-8 text" in bad.error
    assert good.data == {"n": 1, "image": "text"}


def test_a_date_beyond_python_costs_one_row(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    days = pa.array([0, 2**30, 1], pa.int32()).cast(pa.date32())
    pq.write_table(pa.table({"day": days}), path)
    rows = read(path)
    assert [row.data and row.data["day"] for row in rows] == ["1970-01-01", None, "1970-01-02"]
    assert f"{path}:2: " in rows[1].error


def test_a_damaged_row_group_costs_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    rows = [{"n": n, "text": f"some text {n}" * 20} for n in range(30)]
    parquet(path, rows, group=10)
    column = pq.read_metadata(path).row_group(1).column(1)
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    found = read(path)
    assert [row.row for row in found] == list(range(30))
    assert [row.data for row in found] == [*rows[:10], *[None] * 10, *rows[20:]]
    assert all("the row group is damaged" in row.error for row in found[10:20])
    source = open_source(path)
    assert [source.fetch([row[:3]])[0] for row in found] == found


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: Any) -> None:
        raise AssertionError("rows were read")

    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetFile, "iter_batches", refuse)
        yield


@pytest.mark.usefixtures("no_reading")
def test_counting_reads_no_rows(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", [{"n": n} for n in range(1000)], group=100)
    source = open_source(tmp_path / "a.parquet", limit=990)
    assert source.total() == source.index(tmp_path / "input.pos") == 990
    positions = source.positions(tmp_path / "input.pos")
    assert positions is not None and positions.lines == [990]
    assert not (tmp_path / "input.pos").exists()


def test_going_on_reads_only_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass over a large row group, however many chunks it is fetched in."""
    monkeypatch.setattr(module, "BATCH_ROWS", 10)
    parquet(tmp_path / "a.parquet", [{"n": n} for n in range(1000)], group=1000)
    begun: list[Any] = []
    real = pq.ParquetFile.iter_batches

    def counted(*args: Any, **options: Any) -> Any:
        begun.append(options["row_groups"])
        return real(*args, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    source = open_source(tmp_path / "a.parquet")
    for start in range(0, 1000, 7):
        rows = source.fetch([(0, row, -1) for row in range(start, min(start + 7, 1000))])
        assert [row.data["n"] for row in rows] == list(range(start, min(start + 7, 1000)))
    assert begun == [[0]]
    assert source.fetch([(0, 3, -1)])[0].data == {"n": 3}
    assert begun == [[0], [0]]


def test_a_file_that_changes_or_vanishes_is_a_source_error(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet(path, [{"n": 0}, {"n": 1}])
    source = open_source(path)
    parquet(path, [{"n": 0}])
    with pytest.raises(SourceError, match=r"a\.parquet has changed: it had 2 rows when the run began"):
        source.fetch([(0, 0, -1)])
    path.unlink()
    with pytest.raises(SourceError, match=r"a\.parquet cannot be read any more"):
        list(source.rows(0, 1))


def test_no_rows_and_no_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": pa.array([], pa.int64())}), tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet")
    assert source.total() == 0
    assert list(source.rows(0, 1)) == []
