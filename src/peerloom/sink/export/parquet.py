"""Write committed rows to one Parquet file; the JSONL parts remain authoritative.

The rows are read twice: first to find the type of every column (`ColumnShape`), then to write them in
batches, so that memory is bounded by a batch and not by the run. Nested values stay nested. A value whose
type differs between rows is written as JSON text; the file's metadata lists these columns under the key
`peerloom`: `{"json": ["turns[].value"]}`.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec
import orjson

from peerloom.errors import RunDirError
from peerloom.sink.export.shape import ColumnShape
from peerloom.sink.read import Extent, parse_lines, read_lines

BATCH_BYTES = 8 << 20
"""The size of a row group, in bytes of JSON."""

COLUMNS = (
    *("id", "trial", "seed", "outcome", "reason", "input", "messages", "turns", "result"),
    *("usage", "timing", "provenance"),
)
"""The columns of every file, even without rows."""


@dataclass
class _Column:
    """A column or a field within one: its Arrow type, and the parts of it that are written as JSON text.

    `fields` and `items` hold only those parts that need a conversion.
    """

    type: Any
    json: bool = False
    fields: dict[str, "_Column"] = field(default_factory=dict[str, "_Column"])
    items: "_Column | None" = None

    @property
    def is_converted(self) -> bool:
        """Whether any part of the column is written as JSON text."""
        return self.json or bool(self.fields) or self.items is not None

    def convert(self, value: Any) -> Any:
        """Return the value as Arrow takes it."""
        if value is None:
            return None
        if self.json:
            return _text(value)
        if self.items is not None:
            return [self.items.convert(each) for each in value]
        if self.fields:
            return {**value, **{name: inner.convert(value.get(name)) for name, inner in self.fields.items()}}
        return value


def write_parquet(extents: list[Extent], target: Path, on_row: Callable[[], None]) -> tuple[int, list[str]]:
    """Write the rows of these parts to a file.

    Args:
        extents: the committed extents of the parts' files.
        target: the file, which is overwritten.
        on_row: called for each row; an exception that it raises ends the export.

    Returns:
        The number of rows, and the paths of the columns whose values are JSON text.

    Raises:
        RunDirError: if a row is damaged, or was changed while it was written.
        OSError: if the file cannot be written.
    """
    pa: Any = importlib.import_module("pyarrow")  # untyped, and takes a while to import
    parquet: Any = importlib.import_module("pyarrow.parquet")
    shape, found = _shape(extents, on_row)
    texts: list[str] = []
    columns = {name: _column(pa, name, field, texts) for name, field in shape.fields.items()}
    notes = orjson.dumps({"json": texts}).decode()
    fields = [(name, column.type) for name, column in columns.items()]
    schema = pa.schema(fields, metadata={"peerloom": notes})
    written = 0
    with target.open("wb") as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for rows in _batches(extents):
            arrays = [_array(pa, column, rows, name) for name, column in columns.items()]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
            written += len(rows)
            for _ in rows:
                on_row()
    if written != found:
        raise _changed(f"it had {found} rows, then {written}")
    return written, texts


def _shape(extents: list[Extent], on_row: Callable[[], None]) -> tuple[ColumnShape, int]:
    shape, found = ColumnShape(), 0
    shape.add(dict.fromkeys(COLUMNS))
    for extent in extents:
        for row in parse_lines(extent):
            on_row()
            shape.add(row)
            found += 1
    return shape, found


def _column(pa: Any, path: str, shape: ColumnShape, texts: list[str]) -> _Column:
    """Return the column for a shape; append the paths of values that become JSON text to `texts`."""
    kind = shape.kind
    if kind == "json":
        texts.append(path)
        return _Column(pa.string(), json=True)
    if kind == "list":
        items = _column(pa, f"{path}[]", shape.items or ColumnShape(), texts)
        return _Column(pa.list_(items.type), items=items if items.is_converted else None)
    if kind == "object":
        fields = {name: _column(pa, f"{path}.{name}", inner, texts) for name, inner in shape.fields.items()}
        struct = pa.struct([(name, inner.type) for name, inner in fields.items()])
        return _Column(struct, fields={name: inner for name, inner in fields.items() if inner.is_converted})
    types = {"bool": pa.bool_, "int": pa.int64, "uint": pa.uint64, "float": pa.float64, "text": pa.string}
    return _Column(types[kind]())


def _batches(extents: list[Extent]) -> Iterator[list[dict[str, Any]]]:
    lines = (line for extent in extents for line in read_lines(extent))
    rows: list[dict[str, Any]] = []
    size = 0
    for line in lines:
        rows.append(_parse(line))
        size += len(line)
        if size >= BATCH_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _parse(line: bytes) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", orjson.loads(line))
    except orjson.JSONDecodeError as error:  # the first pass has parsed it
        raise _changed(f"a row is damaged: {error.msg}") from error


def _text(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # orjson reads deeper nesting than it writes
        return msgspec.json.encode(value).decode()


def _array(pa: Any, column: _Column, rows: Iterable[dict[str, Any]], name: str) -> Any:
    try:
        return pa.array([column.convert(row.get(name)) for row in rows], type=column.type)
    except (pa.ArrowException, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise _changed(f"{name}: {error}") from error


def _changed(detail: str) -> RunDirError:
    return RunDirError(
        f"the rows were changed while they were written as Parquet ({detail}): "
        "a session that does failed rows again does so; export again"
    )
