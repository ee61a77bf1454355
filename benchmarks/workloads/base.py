"""A workload: where its rows come from, what the model does, and how often it is called.

How long a reply is, and how a row ends, is in the row: so every system does the same, whatever its order.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from peerloom.source.memory import RowsSource

Rows = Iterator[dict[str, Any]]


def _no_calls(rows: list[dict[str, Any]]) -> int:
    return 0


@dataclass(frozen=True)
class Workload:
    """A kind of work, the same for every system.

    Args:
        name: of it.
        rows: makes so many rows.
        calls: how many calls of the model these rows take; by default none.
        behavior: of the simulated model, beside its latency.
        spec: what else a system has to know: prompts, mostly.
    """

    name: str
    rows: Callable[[int], Rows]
    calls: Callable[[list[dict[str, Any]]], int] = _no_calls
    behavior: Mapping[str, float] = field(default_factory=dict[str, float])
    spec: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def source(self, tasks: int) -> RowsSource:
        """Return so many rows as the source of a run."""
        return RowsSource(list(self.rows(tasks)))


def numbered(count: int) -> Rows:
    """Yield rows that hold their number and nothing else."""
    for number in range(count):
        yield {"number": number}
