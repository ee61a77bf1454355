"""What a peer writes down of agents that need not wait."""

import asyncio
from pathlib import Path
from typing import Any

from peerloom.agents.base import Services
from peerloom.agents.function import FunctionAgent
from peerloom.runtime.program import Program
from peerloom.services.llm.simulated.service import SimulatedService
from peerloom.sink.journal.records import TURN
from peerloom.sink.journal.walk import Walk
from peerloom.task import Task, Turn
from peerloom.testing import execute
from peerloom.workflow import Sequence


class Looking:
    """Says what the journal holds, once it has been written."""

    def __init__(self, journal: Path) -> None:
        self.journal = journal

    async def act(self, task: Task, services: Services) -> Turn:
        await asyncio.sleep(0.05)
        data = await asyncio.to_thread(lambda: [path.read_bytes() for path in self.journal.glob("peer-*")])
        records = [record for segment in data for record in Walk(segment, lambda id: id == task.id)]
        return Turn("", value=[[record.kind, record.hop, record.mark] for record in records])


def number(task: Task) -> Any:
    return task.header.hop


async def test_turns_without_a_wait_between_are_one_record(tmp_path: Path):
    look = Looking(tmp_path / "run" / ".peerloom/journal")
    agents = {"one": FunctionAgent(number), "two": FunctionAgent(number), "look": look}
    program = Program(Sequence("one", "two", "look", "one", "two", "look"), agents)
    done = await execute(program, [{}], SimulatedService(), tmp_path / "run")
    first, second = (turn["value"] for turn in done.rows[0]["turns"] if turn["agent"] == "look")
    assert first == [[TURN, 2, 1]]
    assert second == [[TURN, 2, 1], [TURN, 5, 2]]
    assert [turn["value"] for turn in done.rows[0]["turns"] if turn["agent"] == "two"] == [1, 4]
