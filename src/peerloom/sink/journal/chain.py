"""Combine the journal records of one task into chains, and select the one with the most progress.

The records of one attempt form a chain: a BASE or hop 0, TURNs that each begin at the hop where the previous
one ends, and the CALLs at the hop where the last TURN ends. Chains are never mixed.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from peerloom.sink.journal.records import BASE, CALL, TURN, Record


class Chain(NamedTuple):
    """The records by which an attempt reached a hop, and those of its calls at that hop."""

    attempt: int
    hop: int
    base: Record | None
    turns: Sequence[Record]
    calls: Sequence[Record]

    @property
    def rank(self) -> tuple[int, int, int]:
        """The sort key of chains: the last hop, then the number of calls, then the attempt."""
        inherited = self.base.mark if self.base is not None and not self.turns else 0
        return self.hop, len(self.calls) + inherited, self.attempt


def best_chain(records: Iterable[Record]) -> Chain | None:
    """Return the best chain in the records of one task; None if there is no progress in them.

    Copies of a record count once.
    """
    attempts: defaultdict[int, list[Record]] = defaultdict(list)
    for record in records:
        attempts[record.attempt].append(record)
    chains = (chain for attempt, own in attempts.items() for chain in _chains(attempt, own))
    best = max(chains, key=lambda chain: chain.rank, default=None)
    return best if best is not None and best.rank[:2] > (0, 0) else None


def _chains(attempt: int, records: Iterable[Record]) -> Iterator[Chain]:
    """Yield the chains of one attempt: from hop 0, and from each BASE."""
    bases: dict[tuple[int, int], Record] = {}
    turns: defaultdict[int, dict[int, Record]] = defaultdict(dict)
    calls: defaultdict[int, dict[int, Record]] = defaultdict(dict)
    for record in records:
        if record.kind == TURN:
            turns[record.hop - record.mark - 1].setdefault(record.crc, record)
        elif record.kind == CALL:
            calls[record.hop].setdefault(record.mark, record)
        elif record.kind == BASE:
            bases.setdefault((record.hop, record.crc), record)
    for base in (None, *bases.values()):
        hop, steps = base.hop if base is not None else 0, list[Record]()
        while hop in turns:
            candidates = turns[hop].values()
            steps.append(max(candidates, key=lambda record: record.hop))
            hop = steps[-1].hop
            if len(candidates) > 1:
                # Two peers that held the copy made different turns. Later records may belong to either, so
                # stop here. The calls are safe: each answers only a request with its own digest.
                break
        yield Chain(attempt, hop, base, steps, list(calls[hop].values()))
