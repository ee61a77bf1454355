"""Define the result of a run."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from peerloom.api.frames import to_dataset, to_pandas
from peerloom.errors import RunDirError
from peerloom.observe.notebook import result_html
from peerloom.sink.export.writer import Exported, Selection, export
from peerloom.sink.read import read_rows

Ended = Literal["finished", "drained", "suspended", "failed"]

SHOWN_ROWS = 3
"""The number of rows that a notebook shows."""


@dataclass(frozen=True, repr=False)
class RunResult:
    """The result of a run. Iteration yields its completed rows, read from disk; `len()` counts them.

    Attributes:
        run_dir: the directory with its rows, log and summary.
        how: `finished`; `failed` if every row failed, or more rows than `max_failed` allows, with the reason
            in `summary["error"]`; `drained` if it was interrupted, and finished only the tasks in flight; or
            `suspended` if its budget was used up, so that the tasks in flight wait for a larger one.
        summary: the content of `summary.json`.
    """

    run_dir: Path
    how: Ended
    summary: Mapping[str, Any]

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The three most common errors of the last session's agents and workflow, the most common first.

        Each has `role` (empty for the workflow), `reason`, `type`, `message`, `file`, `line`, `count`, and
        `example`, the id of a row. Errors of type `TaskError` are counted by reason. A turn that is repeated
        after a crash counts again.
        """
        return list(self.summary.get("errors", ()))

    def rows(self, *, rejected: bool = False) -> Iterator[dict[str, Any]]:
        """Yield the completed rows; with `rejected` also the filtered, truncated and failed ones."""
        return read_rows(self.run_dir, rejected=rejected)

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,
        rejected: bool = False,
        where: str | None = None,
        test_fraction: float | None = None,
        force: bool = False,
        **options: Any,
    ) -> list[Exported]:
        """Write the completed rows, or with `rejected` the others instead, to a file.

        Args:
            path: the file.
            format: a format's name or an exporter's import path; by default that of the file's suffix.
            rejected: write the rows that did not complete.
            where: an expression over a row's fields, such as `result.score >= 4`; only rows for which it is
                true are written.
            test_fraction: write two files, `-train` and `-test`, the second with about this share of the
                input rows.
            force: replace the file if it exists.
            options: options of the format, such as `assistant="teacher"` or `score="result.score"`.

        Returns:
            For each file its path, the number of its rows, and how many were skipped for which reason.

        Raises:
            ConfigError: if there is no such exporter, option, field, or role, nothing is left to write, the
                file exists already, or it is among the run's own files.
            SinkError: if it cannot be written.
        """
        select = Selection(rejected, where, test_fraction, force)
        target = Path(path).expanduser()
        return export(self.run_dir, target, format=format, options=options, select=select)

    def to_pandas(self, *, rejected: bool = False) -> Any:
        """Return the completed rows, or with `rejected` the others instead, as a `pandas.DataFrame`.

        The columns are those of the Parquet export: values whose type differs between rows are JSON text.
        Needs the extra `pandas`.

        Raises:
            ConfigError: if pandas is not installed, or there is no such row.
        """
        return to_pandas(self.run_dir, rejected=rejected)

    def to_dataset(self, *, rejected: bool = False) -> Any:
        """Return the completed rows, or with `rejected` the others instead, as a `datasets.Dataset`.

        The columns are those of the Parquet export: values whose type differs between rows are JSON text.
        Needs the extra `datasets`.

        Raises:
            ConfigError: if `datasets` is not installed, or there is no such row.
        """
        return to_dataset(self.run_dir, rejected=rejected)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.rows()

    def __repr__(self) -> str:
        outcomes = ", ".join(f"{outcome} {count}" for outcome, count in self.summary["outcomes"].items())
        return f"RunResult({self.how}: {outcomes or 'no rows'}; {self.run_dir})"

    def _repr_html_(self) -> str:
        try:
            rows = list(islice(self.rows(rejected=True), SHOWN_ROWS))
        except RunDirError:  # it was moved or deleted
            rows = []
        return result_html(f"{self.how}: {self.run_dir}", self.summary["outcomes"], rows)

    def __len__(self) -> int:
        return self.summary["outcomes"].get("completed", 0)
