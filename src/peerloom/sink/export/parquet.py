"""Rows as one Parquet file, written from what is committed; the JSONL parts stay what counts.

The rows are read twice: once for the shape of every column (`shape`), once to be written, in batches, so
that memory is bounded by a batch and not by the run. Nested values stay nested. Where rows do not agree, the
value's JSON text stands instead; the file's metadata says where, under the key `peerloom`: `{"json":
["turns[].value"]}`.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec
import orjson

from peerloom.errors import RunDirError
from peerloom.sink.export.shape import Shape
from peerloom.sink.read import Extent, parse_lines, read_lines

BATCH_BYTES = 8 << 20
"""Rows of so many bytes of JSON are a row group."""

COLUMNS = (
    *("id", "trial", "seed", "outcome", "reason", "input", "messages", "turns", "result"),
    *("usage", "timing", "provenance"),
)
"""What every file has, also one without rows."""


@dataclass
class _Place:
    """A column or a place within one: its Arrow type, and what in there has to be written as JSON text."""

    type: Any
    json: bool = False
    fields: dict[str, "_Place"] = field(default_factory=dict[str, "_Place"])
    items: "_Place | None" = None

    def fit(self, value: Any) -> Any:
        """The value as Arrow takes it."""
        if value is None:
            return None
        if self.json:
            return _text(value)
        if self.items is not None:
            return [self.items.fit(each) for each in value]
        if self.fields:
            return {**value, **{name: place.fit(value.get(name)) for name, place in self.fields.items()}}
        return value


def write_parquet(extents: list[Extent], target: Path, going_on: Callable[[], None]) -> tuple[int, list[str]]:
    """Write the rows of these parts to a file.

    Args:
        extents: parts' files, and how far they count.
        target: the file, which is written over.
        going_on: called for each row; what it raises ends the writing.

    Returns:
        How many rows, and the places whose values are JSON text.

    Raises:
        RunDirError: if a row is damaged, or was changed while it was written.
        OSError: if the file cannot be written.
    """
    pa: Any = importlib.import_module("pyarrow")  # untyped, and takes a while to import
    parquet: Any = importlib.import_module("pyarrow.parquet")
    shape, seen = _shape(extents, going_on)
    texts: list[str] = []
    places = {name: _settled(pa, name, field, texts) for name, field in shape.fields.items()}
    notes = orjson.dumps({"json": texts}).decode()
    schema = pa.schema([(name, place.type) for name, place in places.items()], metadata={"peerloom": notes})
    written = 0
    with target.open("wb") as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for rows in _batches(extents):
            columns = [_column(pa, places[name], rows, name) for name in places]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
            written += len(rows)
            for _ in rows:
                going_on()
    if written != seen:
        raise _changed(f"it had {seen} rows, then {written}")
    return written, texts


def _shape(extents: list[Extent], going_on: Callable[[], None]) -> tuple[Shape, int]:
    shape, seen = Shape(), 0
    shape.see(dict.fromkeys(COLUMNS))
    for extent in extents:
        for row in parse_lines(extent):
            going_on()
            shape.see(row)
            seen += 1
    return shape, seen


def _settled(pa: Any, path: str, shape: Shape, texts: list[str]) -> _Place:
    """The place that holds all that a shape has seen; the paths of those that are JSON text go to `texts`."""
    kind = shape.settle()
    if kind == "json":
        texts.append(path)
        return _Place(pa.string(), json=True)
    if kind == "list":
        items = _settled(pa, f"{path}[]", shape.items or Shape(), texts)
        return _Place(pa.list_(items.type), items=items if _is_changed(items) else None)
    if kind == "object":
        fields = {name: _settled(pa, f"{path}.{name}", inner, texts) for name, inner in shape.fields.items()}
        struct = pa.struct([(name, place.type) for name, place in fields.items()])
        return _Place(struct, fields={name: place for name, place in fields.items() if _is_changed(place)})
    types = {"bool": pa.bool_, "int": pa.int64, "uint": pa.uint64, "float": pa.float64, "text": pa.string}
    return _Place(types[kind]())


def _is_changed(place: _Place) -> bool:
    """Whether something in there does not go to Arrow as it is."""
    return place.json or bool(place.fields) or place.items is not None


def _batches(extents: list[Extent]) -> Iterator[list[dict[str, Any]]]:
    lines = (line for extent in extents for line in read_lines(extent))
    rows: list[dict[str, Any]] = []
    size = 0
    for line in lines:
        rows.append(_loaded(line))
        size += len(line)
        if size >= BATCH_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _loaded(line: bytes) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", orjson.loads(line))
    except orjson.JSONDecodeError as error:  # it was read once before
        raise _changed(f"a row is damaged: {error.msg}") from error


def _text(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # nested deeper than it writes, though it has read it
        return msgspec.json.encode(value).decode()


def _column(pa: Any, place: _Place, rows: Iterable[dict[str, Any]], name: str) -> Any:
    try:
        return pa.array([place.fit(row.get(name)) for row in rows], type=place.type)
    except (pa.ArrowException, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise _changed(f"{name}: {error}") from error


def _changed(what: str) -> RunDirError:
    return RunDirError(
        f"the rows were changed while they were written as Parquet ({what}): "
        "a session that does failed rows again does so; export again"
    )
