"""Write committed rows to one Parquet file; the JSONL parts remain authoritative.

The rows are read twice: first to find the type of every column (`ColumnShape`), then to write them in
batches, so that memory is bounded by a batch and not by the run. Nested values stay nested. A value whose
type differs between rows is written as JSON text; the file's metadata lists these columns under the key
`peerloom`: `{"json": ["turns[].value"]}`.
"""

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import orjson

from peerloom.errors import RunDirError
from peerloom.sink.export.exporter import CommittedRows
from peerloom.sink.export.shape import ColumnShape

BATCH_BYTES = 8 << 20
"""The size of a row group, in bytes of JSON."""

COLUMNS = (
    *("id", "trial", "seed", "outcome", "reason", "input", "messages", "turns", "result"),
    *("usage", "timing", "provenance"),
)
"""The columns of every file, even without rows."""


Convert = Callable[[Any], Any]
"""A function that returns a value, which is not None, as Arrow takes it."""


class ParquetExporter:
    """One Parquet file, compressed by zstd."""

    suffix = ".parquet"

    def write(self, rows: CommittedRows, target: Path) -> list[str]:
        """Write the rows to a file, and return the paths of the columns whose values are JSON text."""
        pa: Any = importlib.import_module("pyarrow")  # untyped, and takes a while to import
        parquet: Any = importlib.import_module("pyarrow.parquet")
        shape = _shape(rows)
        found = rows.count
        texts: list[str] = []
        columns = {name: _column(pa, name, field, texts) for name, field in shape.fields.items()}
        notes = orjson.dumps({"json": texts}).decode()
        fields = [(name, type) for name, (type, _) in columns.items()]
        schema = pa.schema(fields, metadata={"peerloom": notes})
        with target.open("wb") as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in _batches(rows):
                arrays = [_array(pa, *column, batch, name) for name, column in columns.items()]
                writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
        if rows.count != found:
            raise _changed(f"it had {found} rows, then {rows.count}")
        return texts


def _shape(rows: CommittedRows) -> ColumnShape:
    shape = ColumnShape()
    shape.add(dict.fromkeys(COLUMNS))
    for row in rows:
        shape.add(row)
    return shape


def _column(pa: Any, path: str, shape: ColumnShape, texts: list[str]) -> tuple[Any, Convert | None]:
    """Return the Arrow type for a shape, and the conversion of its values, if any.

    The paths of values that become JSON text are appended to `texts`.
    """
    kind = shape.kind
    if kind == "json":
        texts.append(path)
        return pa.string(), _text
    if kind == "list":
        type, convert = _column(pa, f"{path}[]", shape.items or ColumnShape(), texts)
        return pa.list_(type), partial(_convert_items, convert) if convert else None
    if kind == "object":
        fields = {name: _column(pa, f"{path}.{name}", inner, texts) for name, inner in shape.fields.items()}
        converted = {name: convert for name, (_, convert) in fields.items() if convert}
        struct = pa.struct([(name, type) for name, (type, _) in fields.items()])
        return struct, partial(_convert_fields, converted) if converted else None
    types = {"bool": pa.bool_, "int": pa.int64, "uint": pa.uint64, "float": pa.float64, "text": pa.string}
    return types[kind](), None


def _convert_items(convert: Convert, values: list[Any]) -> list[Any]:
    return [None if each is None else convert(each) for each in values]


def _convert_fields(converted: dict[str, Convert], value: dict[str, Any]) -> dict[str, Any]:
    found = {name: convert(value[name]) for name, convert in converted.items() if value.get(name) is not None}
    return {**value, **found}


def _batches(rows: CommittedRows) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size = 0
    for row, length in rows.sized():
        batch.append(row)
        size += length
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _text(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # orjson reads deeper nesting than it writes
        return msgspec.json.encode(value).decode()


def _array(pa: Any, type: Any, convert: Convert | None, rows: list[dict[str, Any]], name: str) -> Any:
    values = [row.get(name) for row in rows]
    try:
        return pa.array(_convert_items(convert, values) if convert else values, type=type)
    except (pa.ArrowException, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise _changed(f"{name}: {error}") from error


def _changed(detail: str) -> RunDirError:
    return RunDirError(
        f"the rows were changed while they were written as Parquet ({detail}): "
        "a session that does failed rows again does so; export again"
    )


EXPORTER = ParquetExporter
