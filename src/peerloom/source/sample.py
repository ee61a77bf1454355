"""Sample rows evenly from a source, keeping their positions.

A sampled row has the same id, and its task the same seed, as in a run over the whole source.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from random import Random
from typing import Any

from peerloom.source.base import Position, Source, SourceRow


class SampledSource:
    """A source of the rows sampled by `take_sample`, given the description of their source."""

    def __init__(self, rows: Sequence[SourceRow], of: dict[str, Any]) -> None:
        self._rows = {(row.file, row.row): row for row in rows}
        self._of = of

    def rows(self, partition: int, partitions: int) -> Iterator[SourceRow]:
        """Return the rows of one partition, in order."""
        return (row for row in self._rows.values() if (row.file + row.row) % partitions == partition)

    def fetch(self, positions: Sequence[Position]) -> list[SourceRow]:
        """Return the rows at these positions."""
        return [self._rows[file, row] for file, row, _ in positions]

    def total(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def describe(self) -> dict[str, Any]:
        """Return the description of the source, and a digest of the rows' positions."""
        which = hashlib.blake2b(repr(list(self._rows)).encode(), digest_size=8).hexdigest()
        return {"kind": "sample", "rows": len(self._rows), "which": which, "of": self._of}


def take_sample(source: Source, rows: int, seed: int) -> tuple[SampledSource, int]:
    """Return a sample, and the number of rows of the source. Reads the whole source twice.

    The source is divided into as many equal sections as there are rows to sample, and one row of each is
    chosen at random. So the sample represents all parts of a file.

    Raises:
        SourceError: if a file can no longer be read.
    """
    total = source.total()
    wanted = min(rows, total)
    random = Random(seed)
    bounds = [total * number // wanted for number in range(wanted + 1)] if wanted else []
    chosen = {random.randrange(start, end) for start, end in pairwise(bounds)}
    sample = [row for number, row in enumerate(source.rows(0, 1)) if number in chosen]
    return SampledSource(sample, source.describe()), total
