"""A case: several systems that do the same work, in turn, as often as it takes for a median.

Turns, not blocks: a noisy minute hits all of them. A side that fails once is not tried again, and its
reason takes the place of its figures; the others go on.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.comparison.rows import Row
from peerloom.errors import PeerloomError

Figures = dict[str, float]
Measure = Callable[[], Coroutine[Any, Any, Figures]]


@dataclass(frozen=True)
class Side:
    """A system, and how it is measured once.

    Args:
        system: its name.
        measure: it, once.
        cannot: why it is not measured.
        once: it is measured in the first turn only, since it would take too long.
    """

    system: str
    measure: Measure | None = None
    cannot: str = ""
    once: bool = False


@dataclass
class Found:
    """The figures of one side, run by run, or the reason why there are none."""

    runs: list[Figures] = field(default_factory=list[Figures])
    reason: str = ""

    def get(self, figure: str) -> float | None:
        """Return the median of a figure, or None."""
        values = self._values(figure)
        return median(values) if values else None

    def spread(self, figure: str) -> tuple[float, float] | None:
        """Return the least and the most of a figure, if there are several."""
        values = self._values(figure)
        return (min(values), max(values)) if len(values) > 1 else None

    def medians(self) -> Figures:
        """Return the medians of all figures."""
        return {
            name: median(self._values(name)) for name in dict.fromkeys(n for run in self.runs for n in run)
        }

    def _values(self, figure: str) -> list[float]:
        return [run[figure] for run in self.runs if figure in run] if not self.reason else []


Outcome = dict[str, Found]
"""What was found, by system."""


@dataclass(frozen=True)
class Case:
    """A piece of work that several systems do.

    Args:
        name: for people.
        sides: who does it; ours first.
        rows: what the table says of what was found.
        runs: of each side.
        shown: whether all figures of all sides are worth a table of their own.
    """

    name: str
    sides: Sequence[Side]
    rows: Callable[[Outcome], list[Row]]
    runs: int = 1
    shown: bool = False


def complete(case: Case, outcome: Outcome) -> bool:
    """Return whether all sides of a case that can be measured have been."""
    return all(side.measure is None or outcome.get(side.system, Found()).runs for side in case.sides)


def measure(case: Case, tell: Callable[[str], None]) -> Outcome:
    """Measure all sides of a case, in turn. `tell` is for progress."""
    outcome = {side.system: Found(reason=side.cannot) for side in case.sides}
    for turn in range(case.runs):
        for side in case.sides:
            found = outcome[side.system]
            if side.measure is None or found.reason or (side.once and turn):
                continue
            tell(f"{case.name}: {side.system}, run {turn + 1} of {1 if side.once else case.runs}")
            try:
                found.runs.append(asyncio.run(side.measure()))
            except (PeerloomError, OSError) as error:
                found.reason = " ".join(str(error).split())[-300:]
                tell(f"{case.name}: {side.system}: {found.reason}")
    return outcome
