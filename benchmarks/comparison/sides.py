"""The sides of a case: ours, and those of peers, each with the reason why it is left out if it is."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.comparison.case import Figures, Found, Outcome, Side
from benchmarks.comparison.job import Job, measured
from benchmarks.comparison.peers import absent, known, program
from benchmarks.comparison.rows import Reach, Row, missing
from benchmarks.harness.process import OURS

US = "peerloom"
QUICK_PEERS = frozenset({"aiohttp", "matrix", "raydata", "threads"})
"""Those that the short run takes, if they are installed."""


@dataclass(frozen=True)
class Scope:
    """How much is measured.

    Args:
        quick: one run each of less work.
        peers: only these; None is all that `quick` allows.
        runs: of each side, where a case says nothing else; None is as the case says.
    """

    quick: bool = False
    peers: frozenset[str] | None = None
    runs: int | None = None

    def times(self, count: int) -> int:
        """Return how often each side of a case that wants `count` runs is measured."""
        return self.runs or (1 if self.quick else count)

    def wants(self, name: str) -> bool:
        """Return whether a peer is measured at all."""
        return name in self.peers if self.peers is not None else not self.quick or name in QUICK_PEERS


def ours(job: Job, name: str = US) -> Side:
    """Return the side of Peerloom at a job."""
    return Side(name, partial(measured, OURS, job))


def theirs(scope: Scope, name: str, job: Job) -> Side:
    """Return the side of a peer at the same job."""
    peer = known(name)
    reason = peer.reason(job.workload.name)
    if not reason and not scope.wants(name):
        reason = "left out of --quick" if scope.peers is None else "not asked for"
    reason = reason or absent(peer)
    return Side(name, None if reason else partial(measured, program(peer), job), reason)


def compared(
    figure: str,
    outcome: Outcome,
    key: str,
    *,
    peer: str = "",
    reach: Reach,
    us: str = US,
    note: Callable[[Figures], str] | None = None,
) -> Row:
    """Return a row that compares one figure of ours with a peer's.

    Args:
        figure: what the row is called.
        outcome: what was found.
        key: of the figure, in what was found.
        peer: the system it is compared with.
        reach: what there is to reach.
        us: the side that is ours.
        note: makes a note of our medians.
    """
    mine, other = outcome[us], outcome.get(peer, Found())
    value = mine.get(key)
    if value is None:
        return missing(figure, reach, mine.reason or "no figure was found", peer)
    told = [note(mine.medians())] if note else []
    if peer and other.get(key) is None:
        told.append(f"{peer} not measured: {other.reason}")
    if (stopped := other.get("stopped_after")) is not None:
        told.append(f"{peer} stopped after {stopped:,.0f} s")
    return Row(figure, value, peer, other.get(key), reach, mine.spread(key), "; ".join(told))
