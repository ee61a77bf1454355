"""A row of the table: a figure of ours, the same figure of a peer, and what there is to reach."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.output import significant


@dataclass(frozen=True)
class Reach:
    """What a row has to reach. Made by `at_least`, `at_most`, `times`, `fraction`, or `OPEN`.

    Args:
        text: as the table shows it.
        bound: the number in it; NaN never holds.
        compare: of what was found with the bound.
        of_ratio: whether the ratio to the peer counts, or the value.
    """

    text: str
    bound: float | None = None
    compare: Callable[[float, float], bool] = operator.ge
    of_ratio: bool = False

    def holds(self, value: float | None, ratio: float | None) -> bool | None:
        """Return whether it is reached; None if that is unknown."""
        found = ratio if self.of_ratio else value
        if self.bound is None or found is None:
            return None
        return self.compare(found, self.bound)


OPEN = Reach("-")
"""Nothing is demanded: the row informs."""


def at_least(bound: float) -> Reach:
    """Demand a value of this or more."""
    return Reach(f">= {bound:,g}", bound)


def at_most(bound: float) -> Reach:
    """Demand a value of this or less."""
    return Reach(f"<= {bound:,g}", bound, operator.le)


def times(bound: float) -> Reach:
    """Demand this many times the peer's value, or more."""
    return Reach(f">= {bound:g}x", bound, of_ratio=True)


def fraction(bound: float) -> Reach:
    """Demand this share of the peer's value, or less."""
    return Reach(f"<= {bound:g}x", bound, operator.le, of_ratio=True)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        figure: what was measured, with its unit.
        value: ours; None if it was not measured, and `note` says why.
        peer: the other system.
        peer_value: the same figure of that; None if it was not measured.
        reach: what there is to reach.
        spread: the least and the most of ours, over its runs.
        note: a curve, or the reason for a gap.
    """

    figure: str
    value: float | None
    peer: str = ""
    peer_value: float | None = None
    reach: Reach = OPEN
    spread: tuple[float, float] | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Our value divided by the peer's."""
        if self.value is None or not self.peer_value:
            return None
        return self.value / self.peer_value

    @property
    def holds(self) -> bool | None:
        """Whether the row reaches what it has to; None if that is unknown."""
        return self.reach.holds(self.value, self.ratio)

    def as_json(self) -> dict[str, Any]:
        """Return the row as `--json` prints it, with five significant digits."""
        return {
            "figure": self.figure,
            "value": significant(self.value),
            "peer": self.peer,
            "peer_value": significant(self.peer_value),
            "ratio": significant(self.ratio),
            "reach": self.reach.text,
            "holds": self.holds,
            "spread": [significant(each) for each in self.spread] if self.spread else None,
            "note": self.note,
        }


def missing(figure: str, reach: Reach, reason: str, peer: str = "") -> Row:
    """Return a row that says why there is no figure."""
    return Row(figure, None, peer, reach=reach, note=f"not measured: {reason}")
