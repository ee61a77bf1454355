"""Write committed rows to one Parquet file; the JSONL parts remain authoritative.

The rows are read twice: first to find the type of every column, then to write them in batches, so that memory
is bounded by a batch and not by the run. Nested values stay nested. A value whose type differs between rows
is written as JSON text; the file's metadata lists these columns under the key `peerloom`:
`{"json": ["turns[].value"]}`.
"""

import importlib
from pathlib import Path
from typing import Any

import orjson

from peerloom.errors import RunDirError
from peerloom.sink.export.exporter import CommittedRows

BATCH_BYTES = 8 << 20
"""The size of a row group, in bytes of JSON."""

COLUMNS = (
    *("id", "trial", "seed", "outcome", "reason", "input", "messages", "turns", "result"),
    *("usage", "timing", "provenance"),
)
"""The columns of every file, even without rows."""


class ParquetExporter:
    """One Parquet file, compressed by zstd."""

    suffix = ".parquet"

    def write(self, rows: CommittedRows, target: Path) -> list[str]:
        """Write the rows to a file, and return the paths of the columns whose values are JSON text."""
        pa: Any = importlib.import_module("pyarrow")  # untyped, and takes a while to import
        try:
            return _write(rows, target)
        except (pa.ArrowException, ValueError) as error:
            for _ in rows:  # names the row that is damaged
                pass
            raise RunDirError(
                f"the rows cannot be written as Parquet: {error}. If a session does failed rows again now, "
                "export again; otherwise a row may have fields of a newer release"
            ) from error


def _write(rows: CommittedRows, target: Path) -> list[str]:
    from peerloom.sink.export.arrow import RowTypes, pa  # noqa: PLC0415 - takes a while to import

    parquet: Any = importlib.import_module("pyarrow.parquet")
    types = RowTypes(COLUMNS)
    for block in rows.blocks(BATCH_BYTES):
        types.add(block)
    found, columns = rows.count, types.columns()
    notes = orjson.dumps({"json": columns.texts}).decode()
    schema = pa.schema(columns.fields, metadata={"peerloom": notes})
    with target.open("wb") as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for block in rows.blocks(BATCH_BYTES):
            writer.write_batch(columns.batch(block, schema))
    if rows.count != found:
        raise RunDirError(
            f"the rows were changed while they were written as Parquet ({found}, then {rows.count}): "
            "a session that does failed rows again does so; export again"
        )
    return columns.texts


EXPORTER = ParquetExporter
