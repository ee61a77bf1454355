"""Define the parts of a source: each has one file number.

There are two kinds. The number of lines and their offsets are known only by reading a part; counted rows are
found by their number.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from peerloom.source.storage.lines import Line


class RawRow(NamedTuple):
    """A row as read by a part: a JSON value, or the error of a bad row.

    `where` is the name of the row in errors, e.g. `q.jsonl:17`; `label` is the row's own label, if the part
    has one.
    """

    row: int
    value: Any
    where: str
    error: str = ""
    offset: int = -1
    label: str | int | None = None


class RowReader(Protocol):
    """An open part. One thread at a time uses it."""

    def read(self, rows: Sequence[int]) -> Iterator[RawRow]:
        """Return these rows, whose numbers are ascending and below the part's count.

        Raises:
            SourceError: if the part can no longer be read.
        """
        ...

    def close(self) -> None:
        """Close the part's files."""
        ...


class SourcePart(ABC):
    """One numbered part of the input. Small and picklable; opens its file only while it reads."""

    kind: str
    remote: bool = False
    """Whether the part is behind a URL."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name given by the user."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Describe the part for the run's record, in JSON values."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Return JSON values that identify the content; see `peerloom.source.fingerprint`."""


class LinesPart(SourcePart):
    """A part whose rows are the lines of a file that are not blank."""

    @property
    @abstractmethod
    def size(self) -> int:
        """The size in bytes."""

    @property
    @abstractmethod
    def seekable(self) -> bool:
        """Whether a line can be read at its offset."""

    @abstractmethod
    def lines(self) -> Iterator[Line]:
        """Return the lines that are not blank, in order."""

    @abstractmethod
    def entry(self, line: Line) -> RawRow:
        """Return the row of a line."""

    @abstractmethod
    def fetch(self, wanted: Sequence[tuple[int, int]]) -> Iterator[RawRow]:
        """Return the rows with these numbers and offsets (-1: unknown), without those that do not exist."""


class CountedPart(SourcePart):
    """A part whose rows are found by number, from 0 to before `count`."""

    @property
    @abstractmethod
    def count(self) -> int:
        """The number of rows."""

    @abstractmethod
    def size_of(self, row: int) -> int:
        """Return the approximate size of a row in bytes, at least 1."""

    @abstractmethod
    def open(self) -> RowReader:
        """Return a reader of the rows.

        Raises:
            SourceError: if the part can no longer be read.
        """
