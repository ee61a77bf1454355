import asyncio
from pathlib import Path

import msgspec
import pytest

from peerloom.protocol.view import PEER
from peerloom.runtime.member.compaction import JournalCompactor
from peerloom.runtime.member.journal import MemberJournal
from peerloom.sink.journal.index import JournalIndex
from peerloom.sink.journal.writer import JournalWriter
from peerloom.sink.layout import JOURNAL
from peerloom.task import Header, TaskId

ROTATE = 20_000


class Host:
    """Nothing around the journal but the loop."""

    def spawn(self, work: object) -> None:
        work.close()  # type: ignore[attr-defined]

    def schedule_flush(self) -> None: ...

    def notice(self, text: str) -> None: ...


def journal(run_dir: Path, incarnation: int) -> MemberJournal:
    return MemberJournal(JournalWriter(run_dir, PEER, 0, incarnation, rotate_bytes=ROTATE), Host())


def fill(journal: MemberJournal, rows: range) -> None:
    """Three turns of about 500 bytes for each row."""
    for row in rows:
        for hop in (1, 2, 3):
            turn = msgspec.Raw(msgspec.msgpack.encode(["writer", None, "x" * 500]))
            journal.turn(Header(TaskId(0, row, 0), 1, hop), [turn])
            assert journal.flush()


def tidying(journal: MemberJournal, done: set[int]) -> JournalCompactor:
    async def ask(ids: list[TaskId]) -> list[TaskId]:
        return [id for id in ids if id.row in done]

    return JournalCompactor(journal, 1, ask)


def recalled(run_dir: Path) -> dict[int, int]:
    """How many turns of which rows the journal knows."""
    memory = JournalIndex.scan(run_dir, lambda _: True)
    known = {id.row: memory.pop(id) for id in list(memory.ids())}
    memory.close()
    return {row: len(found.raw_turns) for row, found in known.items() if found}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / JOURNAL).mkdir(parents=True)
    return tmp_path


def segments(run_dir: Path) -> set[str]:
    return {path.name for path in (run_dir / JOURNAL).iterdir()}


async def test_segments_of_finished_tasks_go(run_dir: Path) -> None:
    mine = journal(run_dir, 1)
    fill(mine, range(60))
    before = segments(run_dir)
    await tidying(mine, done=set(range(59))).compact()
    mine.close()
    assert len(segments(run_dir)) < len(before) / 2
    assert recalled(run_dir)[59] == 3


async def test_a_straggler_is_copied_and_its_old_segment_goes(run_dir: Path) -> None:
    mine = journal(run_dir, 1)
    fill(mine, range(60))
    keeps = tidying(mine, done=set(range(1, 60)))
    for _ in range(3):
        await keeps.compact()
    mine.close()
    assert "peer-000-0001-0000.jnl" not in segments(run_dir)
    assert recalled(run_dir)[0] == 3


async def test_what_a_dead_incarnation_left_is_looked_after(run_dir: Path) -> None:
    dead, mine = journal(run_dir, 1), journal(run_dir, 2)
    fill(dead, range(60))
    dead.close()
    await tidying(mine, done=set(range(59))).compact()
    assert recalled(run_dir)[59] == 3
    await tidying(mine, done=set(range(60))).compact()
    mine.close()
    assert not [name for name in segments(run_dir) if name.startswith("peer-000-0001-")]


async def test_what_a_successor_writes_is_left_alone(run_dir: Path) -> None:
    """A process that was given up and lives on must not touch what has taken its place."""
    successor, zombie = journal(run_dir, 2), journal(run_dir, 1)
    fill(successor, range(10))
    before = segments(run_dir)
    await tidying(zombie, done=set(range(10))).compact()
    assert segments(run_dir) == before
    successor.close()
    zombie.close()


async def test_a_segment_that_cannot_be_read_stops_nothing_else(run_dir: Path) -> None:
    dead, mine = journal(run_dir, 1), journal(run_dir, 2)
    fill(dead, range(120))
    dead.close()
    (run_dir / JOURNAL / "peer-000-0001-0000.jnl").unlink()
    (run_dir / JOURNAL / "peer-000-0001-0000.jnl").mkdir()
    await tidying(mine, done=set(range(120))).compact()
    mine.close()
    assert segments(run_dir) == {"peer-000-0001-0000.jnl"}


async def test_it_begins_by_waiting(run_dir: Path) -> None:
    mine = journal(run_dir, 1)
    fill(mine, range(60))
    before = segments(run_dir)
    working = asyncio.create_task(tidying(mine, done=set(range(60))).run())
    await asyncio.sleep(0)
    working.cancel()
    assert segments(run_dir) == before
    mine.close()
