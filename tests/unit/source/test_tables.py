"""Data frames, tables, and data sets in memory are input like any other."""

import datetime
import pickle
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pytest

import peerloom
from peerloom.errors import SourceError
from peerloom.source.fingerprint import fingerprint
from peerloom.source.memory import TableSource
from peerloom.source.parts.tables import table_of

ROWS = [{"n": n, "text": f"row {n} é"} for n in range(1000)]
TABLES = {
    "pyarrow": lambda: pa.Table.from_pylist(ROWS),
    "batch": lambda: pa.RecordBatch.from_pylist(ROWS),
    "pandas": lambda: pd.DataFrame(ROWS).set_index("n", drop=False),
    "datasets": lambda: datasets.Dataset.from_list(ROWS),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_a_source(name: str) -> None:
    source = TableSource(table_of(TABLES[name]()))
    assert [row.data for row in source.rows(0, 1)] == ROWS
    assert [row.data["n"] for row in source.rows(1, 3)] == list(range(1, 1000, 3))
    assert [row.data["n"] for row in source.fetch([(0, 998, -1), (0, 3, -1)])] == [998, 3]
    there = pickle.loads(pickle.dumps(source))
    assert fingerprint(there) == fingerprint(source)
    assert fingerprint(source) != fingerprint(TableSource(table_of(pa.Table.from_pylist(ROWS[1:]))))


def test_polars_is_converted_by_its_own_method() -> None:
    frame = type("DataFrame", (), {"columns": ["n"], "to_arrow": lambda self: pa.Table.from_pylist(ROWS)})
    frame.__module__ = "polars.dataframe.frame"
    assert TableSource(table_of(frame())).total() == 1000


def test_values_that_are_not_json() -> None:
    frame = pd.DataFrame({"day": [datetime.date(2020, 1, 2)], "x": [float("nan")], "raw": [b"\xff"]})
    [row] = TableSource(table_of(frame)).rows(0, 1)
    assert "field 'raw'" in row.error
    [row] = TableSource(table_of(frame.drop(columns="raw"))).rows(0, 1)
    assert row.data == {"day": "2020-01-02", "x": None}


@pytest.mark.parametrize("given", [pd.DataFrame({"a": [1, "x", {}]}), datasets.DatasetDict()])
def test_what_cannot_be_read_is_refused(given: Any) -> None:
    with pytest.raises(SourceError, match=r"cannot be converted|one of its splits"):
        table_of(given)


def test_a_run_over_a_data_frame(tmp_path: Path) -> None:
    result = peerloom.run(
        workflow=peerloom.Sequence("a"),
        agents={"a": peerloom.FunctionAgent(lambda task: task.input["n"])},
        source=pd.DataFrame(ROWS),
        llm="simulated",
        engine="local",
        limit=5,
        run_dir=tmp_path / "run",
    )
    assert sorted(row["result"] for row in result) == [0, 1, 2, 3, 4]
