"""Define the parts of a source: each has one file number.

There are two kinds. The lines of a `JsonlPart` and their offsets are known only by reading it; the rows of a
`CountedPart` are found by their number.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol


class RawRow(NamedTuple):
    """A row as read by a part: a JSON value, or the error of a bad row.

    `where` is the name of the row in errors, e.g. `q.jsonl:17`; `label` is the row's own label, and
    `parent` the row of another run that it was made from, if the part knows them.
    """

    row: int
    value: Any
    where: str
    error: str = ""
    offset: int = -1
    label: str | int | None = None
    parent: str = ""


class RowReader(Protocol):
    """An open part. One thread at a time uses it."""

    def read(self, rows: Sequence[int]) -> Iterator[RawRow]:
        """Return these rows, whose numbers are ascending and below the part's count."""
        ...

    def close(self) -> None:
        """Close the part's files."""
        ...


class CountedPart(ABC):
    """A part whose rows are found by number. Small and picklable; opens its file only while it reads.

    Attributes:
        name: the name given by the user.
        count: the number of rows.
        remote: whether the part is behind a URL.
    """

    kind: str
    name: str
    count: int
    remote: bool = False

    @abstractmethod
    def size_of(self, row: int) -> int:
        """Return the approximate size of a row in bytes, at least 1."""

    @abstractmethod
    def open(self) -> RowReader:
        """Return a reader of the rows."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Describe the part for the run's record, in JSON values."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Return JSON values that identify the content; see `peerloom.source.fingerprint`."""


class OpenPart(CountedPart):
    """A part that is always open, so that it is its own reader."""

    def open(self) -> RowReader:
        """Return itself."""
        return self

    def close(self) -> None:
        """Do nothing: no file stays open."""

    @abstractmethod
    def read(self, rows: Sequence[int]) -> Iterator[RawRow]:
        """Yield these rows, whose numbers are ascending and below the part's count."""
