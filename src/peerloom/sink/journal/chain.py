"""What the records of one task add up to.

The records of one attempt make a chain: a BASE or hop 0, TURNs that each begin where the one before ends, and
the CALLs at the hop where the last one ends. Chains are never mixed: the one that came farthest is taken.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from peerloom.sink.journal.records import BASE, CALL, TURN, Record


class Chain(NamedTuple):
    """The records by which an attempt came to a hop, and those of its calls there."""

    attempt: int
    hop: int
    base: Record | None
    turns: Sequence[Record]
    calls: Sequence[Record]

    @property
    def rank(self) -> tuple[int, int, int]:
        """What decides between chains: the farthest hop, then most calls, then the newest attempt."""
        inherited = self.base.mark if self.base is not None and not self.turns else 0
        return self.hop, len(self.calls) + inherited, self.attempt


def best_chain(records: Iterable[Record]) -> Chain | None:
    """The best chain that these records of one task hold; None if they hold nothing.

    Of copies of a record one counts.
    """
    attempts: defaultdict[int, list[Record]] = defaultdict(list)
    for record in records:
        attempts[record.attempt].append(record)
    chains = (chain for attempt, some in attempts.items() for chain in _chains(attempt, some))
    best = max(chains, key=lambda chain: chain.rank, default=None)
    return best if best is not None and best.rank[:2] > (0, 0) else None


def _chains(attempt: int, records: Iterable[Record]) -> Iterator[Chain]:
    """The chains of one attempt: from hop 0, and from each BASE."""
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
            same = turns[hop].values()
            steps.append(max(same, key=lambda record: record.hop))
            hop = steps[-1].hop
            if len(same) > 1:
                # Two who held the copy made two turns of it: what follows may belong to either, so stop
                # here. The calls are safe: each serves only a request with its own digest.
                break
        yield Chain(attempt, hop, base, steps, list(calls[hop].values()))
