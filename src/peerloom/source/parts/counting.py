"""Count the rows of a source."""

from pathlib import Path

from peerloom.source.base import Source
from peerloom.source.parts.positions import Positioned


def has_rows(source: Source, partitions: int) -> bool:
    """Return whether any of the partitions has a row. Blocks."""
    return any(next(source.rows(each, partitions), None) for each in range(partitions))


def count_rows(source: Source, positions: Path) -> int:
    """Count all rows, and write their positions to a file, so that a resumed run can skip rows. Blocks.

    Raises:
        SourceError: if a row cannot be read.
    """
    return source.index(positions) if isinstance(source, Positioned) else source.total()
