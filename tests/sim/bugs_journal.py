"""What journal, recall, sessions and compaction are for, broken on purpose; see bugs.py.

Some of these mechanisms are not in the protocol core, but in what the world says of the runtime: there
the bug stands for a mistake that the runtime might make.
"""

from collections.abc import Iterable
from typing import Any

import disk
from bugs import FOCUS, bug
from compaction import Compaction
from disk import Segment, SegmentName, Writer
from feeders import FeederProcess
from ledger import Request
from peers import Act, PeerProcess
from processes import Process
from reading import JournalScan
from scenario import AGENT
from sessions import Sessions
from world import World

from peerloom.protocol import census
from peerloom.protocol.feeder import Feeder
from peerloom.protocol.messages import DoneQuery, DoneReply, Item
from peerloom.protocol.view import PEER
from peerloom.sink.journal import chain
from peerloom.sink.journal.chain import Chain
from peerloom.sink.journal.records import CALL, TURN, Record
from peerloom.task import TaskId

FOCUS.update(
    {
        "left-though-the-disk-is-full": [(("full", "kill"), (AGENT,), PEER)],
        "base-not-written": [(("kill", "damage"), (AGENT,), PEER)],
        "scans-before-its-census": [(("heirs",), (AGENT,), "")],
        "vanished-segment-ignored": [(("compact", "kill"), (AGENT,), PEER)],
        "gap-accepted": [(("power", "damage", "kill"), (AGENT,), PEER)],
        "newest-attempt-wins": [(("blackout",), (AGENT,), "")],
        "copied-call-counted-twice": [(("compact", "kill"), (AGENT,), PEER)],
        "adopted-is-done": [(("heirs",), (AGENT,), "")],
        "fresh-feeder-calls-done": [(("heirs", "compact"), (AGENT,), "")],
        "unlinked-before-copies-are-synced": [(("blackout",), (AGENT,), "")],
    }
)

# Writing.


@bug(Writer, "write")
def left_before_it_was_written(original: Any, writer: Writer) -> bool:
    """A task leaves although its turn is not written down yet."""
    return True if writer._world.random() < 0.5 else original(writer)


@bug(Writer, "write")
def left_though_the_disk_is_full(original: Any, writer: Writer) -> bool:
    """What cannot be written is forgotten."""
    if writer.blocked:
        writer.buffer = []
    return original(writer)


@bug(Writer, "add")
def calls_not_written(original: Any, writer: Writer, record: disk.Record) -> None:
    """Only turns are written down."""
    if record.kind != disk.CALL:
        original(writer, record)


@bug(Writer, "add")
def base_not_written(original: Any, writer: Writer, record: disk.Record) -> None:
    """Nobody writes down where a new attempt begins."""
    if record.kind != disk.BASE:
        original(writer, record)


# Recall.


@bug(FeederProcess, "_fetch")
def lost_tasks_start_from_their_input(original: Any, feeder: FeederProcess, lost: list[TaskId]) -> None:
    """A feeder does not ask the journal about what was lost."""
    JournalScan(feeder, set(), lambda _: feeder.fetched(lost, {}))


@bug(FeederProcess, "remember")
def fresh_feeder_does_not_look(original: Any, feeder: FeederProcess) -> None:
    """A fresh feeder does not ask the journal."""
    feeder._memory = {}


@bug(Process, "up")
def scans_before_its_census(original: Any, process: Process, _: None) -> None:
    """A fresh feeder reads the journal while its predecessor's tasks are still at work."""
    if isinstance(process, FeederProcess):
        FeederProcess.remember(process)
    original(process, _)


@bug(JournalScan, "_take")
def vanished_segment_ignored(
    original: Any, reading: JournalScan, name: SegmentName, segment: Segment
) -> bool:
    """A segment that was unlinked meanwhile is taken to have been empty."""
    original(reading, name, segment)
    return True


@bug(chain, "_chains")
def gap_accepted(original: Any, attempt: int, records: Iterable[Record]) -> list[Chain]:
    """Turns count although one before them is missing."""
    records = list(records)
    turns = {record.hop: record for record in records if record.kind == TURN}
    if not turns or any(record.hop == record.mark + 1 for record in turns.values()):
        return list(original(attempt, records))
    return [Chain(attempt, max(turns), None, [turns[hop] for hop in sorted(turns)], [])]


@bug(chain, "best_chain")
def chains_mixed(original: Any, records: Iterable[Record]) -> Chain | None:
    """The turns of all attempts are taken for those of one."""
    records = [record._replace(attempt=0) for record in records]
    turns = [record for record in records if record.kind == TURN]
    one_a_hop = list({turn.hop: turn for turn in turns}.values())
    return original([*(record for record in records if record.kind != TURN), *one_a_hop])


@bug(chain, "best_chain")
def calls_of_another_chain(original: Any, records: Iterable[Record]) -> Chain | None:
    """The calls of all attempts are taken, whatever turn they were made upon."""
    records = list(records)
    best = original(records)
    return best and best._replace(calls=[r for r in records if r.kind == CALL])


@bug(Chain, "rank")
def newest_attempt_wins(original: Any, chain: Chain) -> tuple[int, int, int]:
    """Not what came farthest is taken, but what was tried last."""
    hop, calls, attempt = original(chain)
    return attempt + 1, hop, calls


@bug(chain, "best_chain")
def copied_call_counted_twice(original: Any, records: Iterable[Record]) -> Chain | None:
    """Of a record that compaction has copied, both are taken for calls."""
    return original([r._replace(mark=r.start) if r.kind == CALL else r for r in records])


@bug(PeerProcess, "_saved")
def saved_call_used_twice(original: Any, peer: PeerProcess, act: Act, request: Request) -> int:
    """One saved call answers all equal requests."""
    saved = original(peer, act, request)
    if saved:
        act.saved.append(saved)
    return saved


@bug(census, "_given_up")
def uncertain_copy_goes_on(original: Any, reports: Any, winners: Any, verdicts: Any) -> set[TaskId]:
    """The census lets a copy go on although its receiver may have come farther."""
    for name, report in reports.items():
        winners |= {header.id: name for header in report.uncertain if header.id not in winners}
    return set()


# Sessions.


@bug(Sessions, "earlier")
def session_numbers_not_continued(original: Any, sessions: Sessions) -> int:
    """Views and incarnations of each session begin at the same number."""
    return 0


@bug(World, "write_row")
def late_sink_writes(original: Any, world: World, process: Process, item: Item) -> None:
    """A sink whose shard was taken over can still write to it."""
    id = item.header.id
    if id in world.durable:
        world.violated(f"a second row for {id} by {process.name}, after {world.durable[id]}")
    world.durable[id] = process.name


# Compaction.


@bug(Compaction, "_is_done")
def live_records_dropped(original: Any, compaction: Compaction, record: disk.Record) -> bool:
    """Compaction does not ask."""
    return True


@bug(Feeder, "is_done")
def adopted_is_done(original: Any, feeder: Feeder, id: TaskId) -> bool:
    """A feeder calls done whatever it knows."""
    return id in feeder.past


@bug(Feeder, "is_done")
def only_early_acknowledgements_remembered(original: Any, feeder: Feeder, id: TaskId) -> bool:
    """A feeder calls nothing done that was acknowledged to itself."""
    return False


@bug(Feeder, "done")
def fresh_feeder_calls_done(original: Any, feeder: Feeder, message: DoneQuery) -> DoneReply:
    """What a fresh feeder has no permit for it takes to be done."""
    return DoneReply([id for id in message.ids if id not in feeder._permits])


@bug(Compaction, "_sync")
def unlinked_before_copies_are_synced(original: Any, compaction: Compaction) -> None:
    """The power may fail just then."""


@bug(Compaction, "_adopt")
def nobody_adopts(original: Any, compaction: Compaction) -> None:
    """The segments of the dead are left alone."""
