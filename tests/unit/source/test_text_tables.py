"""CSV, JSON arrays, and Arrow files as they are found in the world."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from peerloom.errors import SourceError
from peerloom.source.base import SourceRow
from peerloom.source.open import open_source


def read(path: Path, data: bytes, **options: Any) -> list[SourceRow]:
    path.write_bytes(data)
    return list(open_source(path, **options).rows(0, 1))


def test_a_byte_order_mark_windows_lines_and_blank_ones(tmp_path: Path) -> None:
    data = '\ufeff"q",a\r\n\r\n"one\r\ntwo",1\r\n\r\n"a ""b""",\r\n'.encode()
    rows = read(tmp_path / "x.csv", data)
    assert [row.data for row in rows] == [{"q": "one\r\ntwo", "a": "1"}, {"q": 'a "b"', "a": ""}]
    assert [row.row for row in rows] == [2, 5]


def test_a_malformed_record_costs_one_row(tmp_path: Path) -> None:
    data = b'q,a\n"never closed,1\nok,2\ntoo,many,3\n"x"y,4\n\xe9,5\nlast,6'
    rows = read(tmp_path / "x.csv", data)
    assert [row.data for row in rows if not row.error] == [{"q": "ok", "a": "2"}, {"q": "last", "a": "6"}]
    errors = [row.error for row in rows if row.error]
    assert [error.split(": ")[0].rsplit(":", 1)[1] for error in errors] == ["2", "4", "5", "6"]
    assert "it has 3 fields, but the first line has 2" in errors[1]
    assert "not UTF-8" in errors[3]


def test_many_malformed_records(tmp_path: Path) -> None:
    rows = read(tmp_path / "x.csv", b"q\n" + b'"x"y\n' * 20_000 + b"ok\n")
    assert len(rows) == 20_001 and rows[-1].data == {"q": "ok"}


def test_another_delimiter(tmp_path: Path) -> None:
    from peerloom.source.formats.csv import Csv

    assert read(tmp_path / "x.csv", b"q;a\n1,5;2\n", format=Csv(delimiter=";"))[0].data == {
        "q": "1,5",
        "a": "2",
    }
    with pytest.raises(SourceError, match="one character"):
        read(tmp_path / "x.csv", b"q\n", format=Csv(delimiter="ab"))


@pytest.mark.parametrize(
    ("data", "why"), [(b"", "it is empty"), (b"a,a\n1,2\n", "unique"), (b"\xe9\n", "UTF-8")]
)
def test_a_header_that_names_no_fields_is_refused(data: bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=why):
        read(tmp_path / "x.csv", data)


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 20])
def test_an_array_is_split_wherever_it_is_cut(
    chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peerloom.source.storage.lines._PLAIN_CHUNK", chunk)
    elements = [{"a": 'x"],[{\\', "b": [1, [2, {"c": "}"}]]}, {"d": "é\n"}, {}]
    rows = read(tmp_path / "x.json", f" {json.dumps(elements, indent=2)}\n".encode())
    assert [row.data for row in rows] == elements


def test_a_bad_element_costs_one_row_and_a_cut_file_its_rest(tmp_path: Path) -> None:
    rows = read(tmp_path / "x.json", b'[{"a": 1}, {"a": NaN}, 7, {"a": 2}, {"a": ')
    assert [row.data for row in rows] == [{"a": 1}, None, None, {"a": 2}, None, None]
    assert "x.json[1]" in rows[1].error
    assert "the array is cut off" in rows[5].error


def test_json_lines_named_json(tmp_path: Path) -> None:
    assert [row.data for row in read(tmp_path / "x.json", b'{"a": 1}\n{"a": 2}\n')] == [{"a": 1}, {"a": 2}]


def test_rows_of_an_arrow_file_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    table = pa.table({"n": list(range(5000))})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=1500)
    source = open_source(path)
    for row in (4999, 0, 2500, 1499, 1500):
        assert source.fetch([(0, row, -1)])[0].data == {"n": row}


def test_a_damaged_arrow_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not a valid Arrow file"):
        read(tmp_path / "x.arrow", b"ARROW1 and nothing else")
