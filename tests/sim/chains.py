"""What the journal knows of a task, by the journal's own code: of all attempts' chains the best one."""

from collections.abc import Iterable
from typing import NamedTuple

from disk import BASE, CALL, TURN, Record

from peerloom.sink.journal import chain, records
from peerloom.task import TaskId

KINDS = {TURN: records.TURN, CALL: records.CALL, BASE: records.BASE}


class Known(NamedTuple):
    """What a task is admitted again with."""

    turns: tuple[int, ...] = ()
    calls: tuple[int, ...] = ()


NOTHING = Known()


def recall(found: Iterable[Record], ids: set[TaskId] | None = None) -> dict[TaskId, Known]:
    """The best chain of each of these tasks; of all, if `ids` is None."""
    by_task: dict[TaskId, list[Record]] = {}
    for record in found:
        if ids is None or record.id in ids:
            by_task.setdefault(record.id, []).append(record)
    return {id: _known(some) for id, some in by_task.items()}


def _known(found: list[Record]) -> Known:
    best = chain.best_chain([_as_in_a_segment(record, place) for place, record in enumerate(found)])
    if best is None:
        return NOTHING
    base = found[best.base.start] if best.base else None
    turns = (
        *(base.turns if base else ()),
        *(token for turn in best.turns for token in found[turn.start].turns),
    )
    calls = base.calls if base and not best.turns else ()
    return Known(turns, (*calls, *(found[call.start].token for call in best.calls)))


def _as_in_a_segment(record: Record, place: int) -> records.Record:
    """As a reader finds it; copies have the same mark and CRC."""
    mark = {TURN: len(record.turns) - 1, CALL: record.token, BASE: len(record.calls)}[record.kind]
    crc = hash((record.token, record.turns, record.calls))
    kind = KINDS[record.kind]
    return records.Record(kind, record.id, record.attempt, record.hop, mark, place, place + 1, crc)
