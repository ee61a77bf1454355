"""Convert blocks of stored rows to Arrow: its JSON reader gets the lines, and then the JSON texts in them.

A field that is JSON text in the files becomes values of one type, or stays the text if its values differ. The
calls of turns stay text, because their requests have little in common, but become full ones.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple, cast

import msgspec
import orjson

from peerloom.sink.export.shape import ColumnShape
from peerloom.sink.read import parse_row
from peerloom.stored import ROW_FIELDS

pa: Any = import_module("pyarrow")  # untyped
compute: Any = import_module("pyarrow.compute")
json: Any = import_module("pyarrow.json")

TYPED = (
    *("input", "result", "conversations", "tools", "provenance", "extra", "messages[].extra"),
    *("turns[].message", "turns[].value", "turns[].extra"),
)
"""The fields whose JSON texts become values, where these have one type."""
_CALLS = "turns[].calls"

_SCALARS = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}

Convert = Callable[[Any], Any]
"""A function that returns a value, which is not None, as Arrow takes it."""


class RowTypes:
    """The types of the rows' fields, found from all rows.

    Args:
        fields: the fields that every file has, first.
    """

    def __init__(self, fields: Sequence[str]) -> None:
        self._fields = fields
        self._shapes = {path: ColumnShape(1) for path in TYPED}
        self._used: set[str] = set()

    def add(self, block: bytes) -> None:
        """Widen the types to hold these rows.

        Raises:
            pyarrow.ArrowException, ValueError: if a line is not a row.
        """
        for path, array in _fields_of("", _read(block, _struct("", ROW_FIELDS, None))):
            self._add(path, array)

    def _add(self, path: str, array: Any) -> None:
        if array.null_count == len(array):
            return
        self._used.add(path)
        if path in self._shapes:
            add = self._shapes[path].add
            for text in compute.unique(array).to_pylist():
                if text is not None:
                    add(orjson.loads(text))
        for inner, values in _fields_of(path, array):
            self._add(inner, values)

    def columns(self) -> "Columns":
        """Return the columns for the rows that were added."""
        used = {*self._fields, *self._used}
        ordered = {name: ROW_FIELDS[name] for name in (*self._fields, *ROW_FIELDS) if name in used}
        return Columns(
            _struct("", ordered, used), {path: self._shapes[path] for path in TYPED if path in used}
        )


class Columns:
    """The columns of an Arrow table, and the conversion of stored rows to their values.

    Attributes:
        fields: the name and type of each.
        texts: the paths of the fields that are JSON text because their types differ between rows.
    """

    def __init__(self, stored: Any, shapes: dict[str, ColumnShape]) -> None:
        self.texts: list[str] = []
        self._stored = stored
        self._columns = {path: _column(path, shape, self.texts) for path, shape in shapes.items()}
        self.fields = [(field.name, self._type(field.name, field.type)) for field in stored]

    def batch(self, block: bytes, schema: Any) -> Any:
        """Return a record batch of rows.

        Raises:
            pyarrow.ArrowException, ValueError: if a row does not have these types.
        """
        fields = _fields_of("", _read(block, self._stored))
        arrays = [self._values(path, array, block) for path, array in fields]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _type(self, path: str, type: Any) -> Any:
        if path in self._columns:
            return self._columns[path].type
        if pa.types.is_list(type):
            return pa.list_(self._type(f"{path}[]", type.value_type))
        if pa.types.is_struct(type):
            return pa.struct([(field.name, self._type(f"{path}.{field.name}", field.type)) for field in type])
        return type

    def _values(self, path: str, array: Any, block: bytes) -> Any:
        if path in self._columns:
            return _from_texts(array, self._columns[path])
        if path == _CALLS:
            return _full_calls(array, block)
        if pa.types.is_list(array.type):
            values = self._values(f"{path}[]", array.values, block)
            return pa.ListArray.from_arrays(array.offsets, values, mask=array.is_null())
        if pa.types.is_struct(array.type):
            inner = [self._values(name, values, block) for name, values in _fields_of(path, array)]
            names = [field.name for field in array.type]
            return pa.StructArray.from_arrays(inner, names, mask=array.is_null())
        return array


class _Column(NamedTuple):
    """The type for some JSON texts, and the conversion of their values; None if Arrow can read them."""

    type: Any
    convert: Convert | None


def _read(lines: bytes, type: Any) -> Any:
    """Return lines of JSON objects as a struct array of a type."""
    reading = json.ReadOptions(use_threads=False, block_size=len(lines) + 1)
    parsing = json.ParseOptions(explicit_schema=pa.schema(list(type)), unexpected_field_behavior="error")
    return json.read_json(pa.BufferReader(lines), reading, parsing).to_struct_array().combine_chunks()


def _struct(path: str, fields: dict[str, Any], used: set[str] | None) -> Any:
    """Return the Arrow type of an object in the files, with all fields, or those whose paths are in use."""
    paths = {name: f"{path}.{name}" if path else name for name in fields}
    kept = [name for name in fields if used is None or paths[name] in used] or list(fields)
    return pa.struct([(name, _stored_type(paths[name], fields[name], used)) for name in kept])


def _stored_type(path: str, type: Any, used: set[str] | None) -> Any:
    if isinstance(type, list):
        return pa.list_(_stored_type(f"{path}[]", cast("list[Any]", type)[0], used))
    if isinstance(type, dict):
        return _struct(path, cast("dict[str, Any]", type), used)
    return _SCALARS[type]


def _fields_of(path: str, array: Any) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a struct, or the items of a list, each with its path."""
    if pa.types.is_list(array.type):
        yield f"{path}[]", array.values
    elif pa.types.is_struct(array.type):
        for number, field in enumerate(array.type):
            yield f"{path}.{field.name}" if path else field.name, array.field(number)


def _column(path: str, shape: ColumnShape, texts: list[str]) -> _Column:
    """Return the Arrow type for a shape, and the conversion of its values, if any.

    The paths of values that become JSON text are appended to `texts`.
    """
    kind = shape.kind
    if kind == "json":
        texts.append(path)
        return _Column(pa.string(), _text)
    if kind == "list":
        type, convert = _column(f"{path}[]", shape.items or ColumnShape(), texts)
        return _Column(pa.list_(type), partial(_convert_items, convert) if convert else None)
    if kind == "object":
        fields = {name: _column(f"{path}.{name}", inner, texts) for name, inner in shape.fields.items()}
        converted = {name: convert for name, (_, convert) in fields.items() if convert}
        struct = pa.struct([(name, type) for name, (type, _) in fields.items()])
        return _Column(struct, partial(_convert_fields, converted) if converted else None)
    types = {"bool": pa.bool_, "int": pa.int64, "uint": pa.uint64, "float": pa.float64, "text": pa.string}
    return _Column(types[kind](), None)


def _convert_items(convert: Convert, values: list[Any]) -> list[Any]:
    return [None if each is None else convert(each) for each in values]


def _convert_fields(converted: dict[str, Convert], value: dict[str, Any]) -> dict[str, Any]:
    found = {name: convert(value[name]) for name, convert in converted.items() if value.get(name) is not None}
    return {**value, **found}


def _text(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # orjson reads deeper nesting than it writes
        return msgspec.json.encode(value).decode()


def _from_texts(array: Any, column: _Column) -> Any:
    """Return the values of JSON texts, of which equal ones are parsed once."""
    if column.convert is _text:
        return array
    encoded = array.dictionary_encode()
    texts = encoded.dictionary
    if not len(texts):
        return pa.nulls(len(array), column.type)
    if column.convert is None:
        lines = compute.binary_join_element_wise('{"v":', texts, "}\n", "").to_pylist()
        values = _read("".join(lines).encode(), pa.struct([("v", column.type)])).field(0)
    else:
        loaded = [column.convert(orjson.loads(text)) for text in texts.to_pylist()]
        values = pa.array(loaded, type=column.type)
    return values.take(encoded.indices)


def _full_calls(array: Any, block: bytes) -> Any:
    """Return the calls of turns with full requests."""
    if array.null_count == len(array):
        return array
    rows = (parse_row(line) for line in block.splitlines() if b'"calls"' in line)
    full = (turn["calls"] for row in rows for turn in row["turns"] if "calls" in turn)
    return pa.array([_text(next(full)) if has else None for has in array.is_valid().to_pylist()], pa.string())
