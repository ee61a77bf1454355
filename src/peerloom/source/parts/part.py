"""A part of a source: what the input knows by one file number.

There are two kinds. Of lines it is only known by reading how many there are and where each begins; rows
that are counted are found by their number.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from peerloom.source.storage.lines import Line


class Entry(NamedTuple):
    """What a part has at one row: a JSON value, or why there is none.

    `where` is how an error names the row, e.g. `q.jsonl:17`; `label` is one that it brings along.
    """

    row: int
    value: Any
    where: str
    error: str = ""
    offset: int = -1
    label: str | int | None = None


class RowReader(Protocol):
    """An open part. One thread at a time uses it."""

    def read(self, rows: Sequence[int]) -> Iterator[Entry]:
        """The entries of these rows, which ascend and are there.

        Raises:
            SourceError: if the part cannot be read any more.
        """
        ...

    def close(self) -> None:
        """Close whatever is open."""
        ...


class Part(ABC):
    """One numbered part of the input. Small and picklable; opens its file only while it reads."""

    kind: str
    remote: bool = False
    """Whether it is behind a URL."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What the user knows it by."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What it is, for the run's record; JSON values."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """By what it is known again; see `peerloom.source.fingerprint`."""


class LinesPart(Part):
    """A part whose rows are the lines of a file; blank lines are none."""

    @property
    @abstractmethod
    def size(self) -> int:
        """In bytes."""

    @property
    @abstractmethod
    def seekable(self) -> bool:
        """Whether a line can be read at its offset."""

    @abstractmethod
    def lines(self) -> Iterator[Line]:
        """Its lines that are not blank, in order."""

    @abstractmethod
    def entry(self, line: Line) -> Entry:
        """What is in a line."""

    @abstractmethod
    def fetch(self, wanted: Sequence[tuple[int, int]]) -> Iterator[Entry]:
        """The entries at these rows and offsets (-1: not known), as far as they are there."""


class CountedPart(Part):
    """A part whose rows are found by number, from 0 to before `count`."""

    @property
    @abstractmethod
    def count(self) -> int:
        """How many rows it has."""

    @abstractmethod
    def size_of(self, row: int) -> int:
        """About how many bytes a row is; 1 or more."""

    @abstractmethod
    def open(self) -> RowReader:
        """Whoever reads its rows.

        Raises:
            SourceError: if it cannot be read any more.
        """
