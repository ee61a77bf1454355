"""Export the rows of a run to one file: JSONL, copied line by line, or Parquet.

The file holds the rows that are committed when the export begins, even if the run continues. It appears under
its name when it is complete. In the run directory itself only the two names in `PARQUET` are allowed.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from peerloom.errors import ConfigError
from peerloom.sink.export.parquet import write_parquet
from peerloom.sink.files import sync_folder, write_failed
from peerloom.sink.layout import DATA, PARQUET, REJECTED
from peerloom.sink.read import Extent, list_extents, read_lines

SUFFIXES = (".parquet", ".jsonl")


class Exported(NamedTuple):
    """A file that was written. `texts` are the paths in a Parquet file whose values are JSON text."""

    path: Path
    rows: int
    texts: list[str]


def _ignore() -> None:
    """Do nothing."""


def export(
    run_dir: Path,
    target: Path | None = None,
    *,
    rejected: bool = False,
    on_row: Callable[[], None] = _ignore,
) -> Exported:
    """Write the completed rows, or the rejected ones, to a file, which is overwritten if it exists.

    Args:
        run_dir: the run directory; the run may be active.
        target: a `.parquet` or `.jsonl` file; by default `data.parquet` (`rejected.parquet`) in `run_dir`.
        rejected: export the rows that did not complete, instead of those that did.
        on_row: called for each row; an exception that it raises ends the export without leaving a file.

    Raises:
        ConfigError: if the file's suffix is unknown, or it would be among the run's own files.
        RunDirError: if there is no such run directory, or a row in it is damaged.
        SinkError: if the file cannot be written.
    """
    folder = REJECTED if rejected else DATA
    extents = list_extents(run_dir, folder)
    path = target or run_dir / PARQUET[folder]
    _check(run_dir, path, folder)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(temporary.unlink, missing_ok=True)
            if path.suffix == ".parquet":
                rows, texts = write_parquet(extents, temporary, on_row)
            else:
                rows, texts = _copy(extents, temporary, on_row), []
            _sync(temporary)
            temporary.rename(path)
            cleanup.pop_all()
    except OSError as error:
        raise write_failed(path, error) from error
    sync_folder(path.absolute().parent)
    return Exported(path, rows, texts)


def export_parquet(run_dir: Path, on_row: Callable[[], None] = _ignore) -> list[Exported]:
    """Write `data.parquet`, and `rejected.parquet` if there are rejected rows; else remove an old one.

    Raises:
        RunDirError: if a row is damaged.
        SinkError: if a file cannot be written.
    """
    written = [export(run_dir, on_row=on_row)]
    if any(extent.end for extent in list_extents(run_dir, REJECTED)):
        written.append(export(run_dir, rejected=True, on_row=on_row))
    else:
        (run_dir / PARQUET[REJECTED]).unlink(missing_ok=True)
    return written


def _check(run_dir: Path, path: Path, folder: str) -> None:
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: rows are written as {' or '.join(SUFFIXES)}: end the file's name so")
    inside = path.resolve().is_relative_to(run_dir.resolve())
    if inside and path.resolve() != (run_dir / PARQUET[folder]).resolve():
        raise ConfigError(
            f"{path} is in the run directory, among the run's own files: choose another place, "
            f"or leave it out for {run_dir / PARQUET[folder]}"
        )


def _copy(extents: list[Extent], target: Path, on_row: Callable[[], None]) -> int:
    rows = 0
    with target.open("wb") as file:
        for extent in extents:
            for line in read_lines(extent):
                on_row()
                file.write(line)
                rows += 1
    return rows


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
