"""A run's rows as one file: JSONL, line by line as they are, or Parquet.

What is committed when the export begins is what the file holds, also while the run goes on. The file
appears under its name when it is whole. In the run directory itself only Parquet's own two names are used.
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
    """A file that was written. `texts` are the places of a Parquet file whose values are JSON text."""

    path: Path
    rows: int
    texts: list[str]


def _never() -> None:
    """Nobody ends the export before its time."""


def export(
    run_dir: Path,
    target: Path | None = None,
    *,
    rejected: bool = False,
    going_on: Callable[[], None] = _never,
) -> Exported:
    """Write the completed rows, or the others, to a file, which is written over if it is there.

    Args:
        run_dir: the run directory; the run may go on.
        target: a `.parquet` or `.jsonl` file; by default `data.parquet` (`rejected.parquet`) in `run_dir`.
        rejected: the rows that did not complete, instead of those that did.
        going_on: called for each row; what it raises ends the export, and nothing is left of it.

    Raises:
        ConfigError: if the file's kind is not known, or it would be among the run's own files.
        RunDirError: if there is no such run directory, or a row in it is damaged.
        SinkError: if the file cannot be written.
    """
    folder = REJECTED if rejected else DATA
    extents = list_extents(run_dir, folder)
    path = target or run_dir / PARQUET[folder]
    _check(run_dir, path, folder)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with contextlib.ExitStack() as undo:
            undo.callback(temporary.unlink, missing_ok=True)
            if path.suffix == ".parquet":
                rows, texts = write_parquet(extents, temporary, going_on)
            else:
                rows, texts = _copy(extents, temporary, going_on), []
            _sync(temporary)
            temporary.rename(path)
            undo.pop_all()
    except OSError as error:
        raise write_failed(path, error) from error
    sync_folder(path.absolute().parent)
    return Exported(path, rows, texts)


def export_parquet(run_dir: Path, going_on: Callable[[], None] = _never) -> list[Exported]:
    """Write `data.parquet`, and `rejected.parquet` if there are such rows; one of earlier goes otherwise.

    Raises:
        RunDirError: if a row is damaged.
        SinkError: if a file cannot be written.
    """
    written = [export(run_dir, going_on=going_on)]
    if any(extent.end for extent in list_extents(run_dir, REJECTED)):
        written.append(export(run_dir, rejected=True, going_on=going_on))
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


def _copy(extents: list[Extent], target: Path, going_on: Callable[[], None]) -> int:
    rows = 0
    with target.open("wb") as file:
        for extent in extents:
            for line in read_lines(extent):
                going_on()
                file.write(line)
                rows += 1
    return rows


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
