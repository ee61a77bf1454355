"""Define the result of a run."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from peerloom.sink.export.writer import export
from peerloom.sink.read import read_rows

Ended = Literal["finished", "drained", "suspended", "failed"]


@dataclass(frozen=True, repr=False)
class RunResult:
    """The result of a run. Iteration yields its completed rows, read from disk; `len()` counts them.

    Attributes:
        run_dir: the directory with its rows, log and summary.
        how: `finished`; `failed` if every row failed, or more rows than `max_failed` allows, with the reason
        in
            `summary["error"]`; `drained` if it was interrupted, and finished only the tasks in flight; or
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

    def export(self, path: str | os.PathLike[str], *, rejected: bool = False) -> Path:
        """Write the completed rows, or with `rejected` the others instead, to a `.parquet` or `.jsonl` file.

        In a Parquet file nested values stay nested; values whose type differs between rows become JSON text.

        Raises:
            ConfigError: if the file has another suffix, or is among the run's own files.
            SinkError: if it cannot be written.
        """
        return export(self.run_dir, Path(path).expanduser(), rejected=rejected).path

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.rows()

    def __repr__(self) -> str:
        outcomes = ", ".join(f"{outcome} {count}" for outcome, count in self.summary["outcomes"].items())
        return f"RunResult({self.how}: {outcomes or 'no rows'}; {self.run_dir})"

    def __len__(self) -> int:
        return self.summary["outcomes"].get("completed", 0)
