"""Load the rows of a run into pandas, or as a data set of the library `datasets`.

Both have the columns of the Parquet export: values whose type differs between rows are JSON text.
"""

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from peerloom.errors import ConfigError
from peerloom.sink.export.writer import Selection, export


def to_pandas(run_dir: Path, *, rejected: bool) -> Any:
    """Return the completed or the rejected rows as a `pandas.DataFrame`."""
    pandas = _import("pandas", "to_pandas")
    table = _read_table(run_dir, rejected=rejected)
    return pandas.DataFrame({name: _series(pandas, table[name]) for name in table.column_names})


def to_dataset(run_dir: Path, *, rejected: bool) -> Any:
    """Return the completed or the rejected rows as a `datasets.Dataset`."""
    datasets = _import("datasets", "to_dataset")
    return datasets.Dataset(_read_table(run_dir, rejected=rejected))


def _series(pandas: Any, column: Any) -> Any:
    """Return the values of a column. Whole numbers beside nulls, which pandas makes floats, stay exact."""
    kind = str(column.type)
    nullable = {"int64": "Int64", "uint64": "UInt64"}.get(kind) if column.null_count else None
    values = column.to_pylist()
    return values if nullable is None else pandas.array(values, dtype=nullable)


def _read_table(run_dir: Path, *, rejected: bool) -> Any:
    parquet: Any = import_module("pyarrow.parquet")  # takes a while to import
    with tempfile.TemporaryDirectory(prefix="peerloom-") as scratch:
        path = Path(scratch) / "rows.parquet"
        export(run_dir, path, format="parquet", select=Selection(rejected, may_be_empty=True))
        return parquet.read_table(path).replace_schema_metadata()


def _import(name: str, method: str) -> Any:
    """Import the optional library that is the extra of the same name."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"{method} needs {name}, which is not installed: pip install 'peerloom[{name}]'"
        ) from error
