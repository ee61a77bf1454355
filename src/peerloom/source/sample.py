"""Some rows of a source, evenly spread over it, each with the place that it has there.

So a sampled row has the id, and its task the seed, that it has in a run over the whole source.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from random import Random
from typing import Any

from peerloom.source.base import Position, Source, SourceRow


class SampledSource:
    """The rows that `take_sample` took, as a source.

    Args:
        taken: the rows, in their order.
        of: what the source they are from says of itself.
    """

    def __init__(self, taken: Sequence[SourceRow], of: dict[str, Any]) -> None:
        self._rows = {(row.file, row.row): row for row in taken}
        self._of = of

    def rows(self, partition: int, partitions: int) -> Iterator[SourceRow]:
        """The rows of one partition, in order."""
        return (row for row in self._rows.values() if (row.file + row.row) % partitions == partition)

    def fetch(self, positions: Sequence[Position]) -> list[SourceRow]:
        """The rows at these positions."""
        return [self._rows[file, row] for file, row, _ in positions]

    def total(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    def describe(self) -> dict[str, Any]:
        """What was sampled, and which rows."""
        which = hashlib.blake2b(repr(list(self._rows)).encode(), digest_size=8).hexdigest()
        return {"kind": "sample", "rows": len(self._rows), "which": which, "of": self._of}


def take_sample(source: Source, rows: int, seed: int) -> tuple[SampledSource, int]:
    """A sample, and how many rows the source has. Reads all of it, twice.

    The source is cut into as many equal stretches as rows are wanted, and one row taken of each by chance:
    what grows or changes along a file is in the sample in proportion.

    Raises:
        SourceError: if a file cannot be read any more.
    """
    total = source.total()
    wanted = min(rows, total)
    random = Random(seed)
    bounds = [total * number // wanted for number in range(wanted + 1)] if wanted else []
    chosen = {random.randrange(start, end) for start, end in pairwise(bounds)}
    taken = [row for number, row in enumerate(source.rows(0, 1)) if number in chosen]
    return SampledSource(taken, source.describe()), total
