"""Export the rows of a run to one file, or to one for training and one for tests.

The file holds the rows that are committed when the export begins, even if the run continues. It appears under
its name when it is complete, and replaces no other file unless told to. In the run directory itself only the
names `data` and `rejected` are allowed.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from peerloom.errors import ConfigError
from peerloom.sink.export.exporter import CommittedRows, Exporter, exporter_for, find_exporter
from peerloom.sink.export.where import parse_where
from peerloom.sink.files import sync_folder, write_failed
from peerloom.sink.layout import DATA, REJECTED
from peerloom.sink.read import Extent, list_extents


class Exported(NamedTuple):
    """A file that was written.

    `rows` is the number of its rows, or records; `texts` are the paths of the values in it that are JSON
    text; `skipped` tells why rows or groups are not in it, each reason with their number.
    """

    path: Path
    rows: int
    texts: Sequence[str]
    skipped: Mapping[str, int]


def _ignore() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Selection:
    """The rows to export, and whether an existing file may be replaced.

    Attributes:
        rejected: take the rows that did not complete, instead of those that did.
        where: an expression over a row's fields; only rows for which it is true are taken.
        test_fraction: write two files, `-train` and `-test`, the second with about this share of the input
            rows; all trials of an input row are in the same file.
        force: replace the file if it exists.
        may_be_empty: write a file also if no completed row is left for it.
    """

    rejected: bool = False
    where: str | None = None
    test_fraction: float | None = None
    force: bool = False
    may_be_empty: bool = False

    def __post_init__(self) -> None:
        if self.test_fraction is not None and not 0 < self.test_fraction < 1:
            raise ConfigError(f"test_fraction is {self.test_fraction}: it must be between 0 and 1")


def export(
    run_dir: Path,
    target: Path | None = None,
    *,
    format: str | None = None,
    options: Mapping[str, Any] | None = None,
    select: Selection | None = None,
    on_row: Callable[[], None] = _ignore,
) -> list[Exported]:
    """Write rows of a run to a file, or to one for training and one for tests.

    Args:
        run_dir: the run directory; the run may be active.
        target: the file; by default `data` (`rejected`) in `run_dir`, with the exporter's suffix, which is
            replaced if it exists.
        format: the name or import path of the exporter; by default the one for the file's suffix, or
            `parquet`.
        options: options of the exporter.
        select: the rows to write; by default the completed ones.
        on_row: called for each row that is read; an exception that it raises ends the export without leaving
            a file.

    Raises:
        ConfigError: if there is no such exporter or option, `where` is wrong, nothing is left to write, the
            file exists already, its folder does not, or it would be among the run's own files.
        RunDirError: if there is no such run directory, or a row in it is damaged.
        SinkError: if the file cannot be written.
    """
    select = select or Selection()
    folder = REJECTED if select.rejected else DATA
    extents = list_extents(run_dir, folder)
    named = format or ("parquet" if target is None else None)
    exporter = find_exporter(named, options) if named else exporter_for(target or run_dir, options)
    default = run_dir / f"{folder}{exporter.suffix}"
    job = _Job(exporter, run_dir, extents, folder, on_row)
    keep = parse_where(select.where) if select.where else None
    if select.test_fraction is None:
        path = target or default
        _check(run_dir, path, default, force=select.force)
        return [job.write(path, keep, may_be_empty=select.may_be_empty)]
    return _write_split(job, target or default, select.test_fraction, keep, force=select.force)


Keep = Callable[[dict[str, Any]], bool]


@dataclass(frozen=True)
class _Job:
    """An export of some rows by one exporter."""

    exporter: Exporter
    run_dir: Path
    extents: Sequence[Extent]
    folder: str
    on_row: Callable[[], None] = field(default=_ignore)

    def write(self, path: Path, keep: Keep | None, *, may_be_empty: bool = False) -> Exported:
        rows = CommittedRows(self.extents, self.on_row, keep)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with contextlib.ExitStack() as cleanup:
                cleanup.callback(temporary.unlink, missing_ok=True)
                texts = self.exporter.write(rows, temporary)
                written = rows.count if rows.records is None else rows.records
                if not written and not may_be_empty and self.folder == DATA:
                    raise ConfigError(self._explain_nothing(path, rows, filtered=keep is not None))
                _sync(temporary)
                temporary.rename(path)
                cleanup.pop_all()
        except OSError as error:
            raise write_failed(path, error) from error
        sync_folder(path.absolute().parent)
        return Exported(path, written, texts, dict(rows.skipped))

    def _explain_nothing(self, path: Path, rows: CommittedRows, *, filtered: bool) -> str:
        if rows.skipped:
            reasons = "; ".join(f"{reason} ({number})" for reason, number in rows.skipped.most_common())
            return f"{path} was not written, because nothing is left for it: {reasons}"
        if filtered:
            return f"{path} was not written, because no completed row of {self.run_dir} is selected for it"
        return (
            f"{path} was not written, because {self.run_dir} has no completed row: "
            "its summary.json counts the others, and --rejected (rejected=True) exports them"
        )


def _write_split(job: _Job, path: Path, fraction: float, keep: Keep | None, *, force: bool) -> list[Exported]:
    suffix = job.exporter.suffix if path.name.endswith(job.exporter.suffix) else path.suffix
    stem = path.name.removesuffix(suffix)
    train, test = (path.with_name(f"{stem}-{part}{suffix}") for part in ("train", "test"))
    for each in (train, test):
        _check(job.run_dir, each, None, force=force)

    def in_part(is_test: bool) -> Keep:
        return lambda row: _is_test(row["id"], fraction) is is_test and (keep is None or keep(row))

    return [job.write(train, in_part(False)), job.write(test, in_part(True), may_be_empty=True)]


def _is_test(id: str, fraction: float) -> bool:
    """Return whether a row is in the test part, which depends on its input row only."""
    input_row = id.rpartition("-")[0]
    digest = hashlib.blake2b(input_row.encode(), digest_size=8).digest()
    return int.from_bytes(digest) < fraction * 2**64


def export_all(run_dir: Path, format: str, on_row: Callable[[], None] = _ignore) -> list[Exported]:
    """Write `data`, and `rejected` if there are rejected rows; else remove an old one.

    Raises:
        RunDirError: if a row is damaged.
        SinkError: if a file cannot be written.
    """
    exporter = find_exporter(format)
    written: list[Exported] = []
    for folder in (DATA, REJECTED):
        extents = list_extents(run_dir, folder)
        path = run_dir / f"{folder}{exporter.suffix}"
        if folder == DATA or any(extent.end for extent in extents):
            job = _Job(exporter, run_dir, extents, folder, on_row)
            written.append(job.write(path, None, may_be_empty=True))
        else:
            path.unlink(missing_ok=True)
    return written


def _check(run_dir: Path, path: Path, default: Path | None, *, force: bool) -> None:
    if default is not None and path.resolve() == default.resolve():
        return
    if path.resolve().is_relative_to(run_dir.resolve()):
        instead = f", or leave it out for {default}" if default else ""
        raise ConfigError(
            f"{path} is in the run directory, among the run's own files: choose another place{instead}"
        )
    if not os.path.isdir(path.parent):
        raise ConfigError(f"{path} cannot be written: there is no folder {path.parent}; create it first")
    if os.path.exists(path) and not force:
        raise ConfigError(
            f"{path} exists already: choose another name, or replace it with --force (force=True)"
        )


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
