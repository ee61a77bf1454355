"""Rows of offloading and compression: bytes between two nodes for each task, with and without."""

from peerloom.bench.house.cases import Case, Outcome, Side
from peerloom.bench.house.rows import Reach, Row, at_most, missing
from peerloom.bench.house.sides import US, Scope

FIGURES: dict[str, Reach] = {
    "bytes between two nodes a task, turns of 1 KB: with offloading and compression, share of without": at_most(
        0.8
    ),
    "bytes between two nodes a task, turns of 20 KB: share": at_most(0.4),
    "how often a value of 1 MB crosses to a node that reads it": at_most(1),
}


def cases(scope: Scope) -> list[Case]:
    """One case."""
    return [Case("traffic", [Side(US, None, "the runtime neither offloads nor compresses yet")], _rows)]


def _rows(outcome: Outcome) -> list[Row]:
    return [missing(figure, reach, outcome[US].reason) for figure, reach in FIGURES.items()]
