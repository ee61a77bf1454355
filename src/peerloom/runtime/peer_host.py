"""Drives a peer: tasks come in batches, each is taken through the agents hosted here, then moves on.

Every task at work is one asyncio task. As long as the next role is hosted here, a hop is the next turn
of its loop; nothing is encoded until the task leaves. What leaves is in the journal before.
"""

import asyncio

from peerloom.protocol.messages import Deliver, Delivered, Grants, Item, Message, Pace, Readings
from peerloom.protocol.peer import Move, Peer
from peerloom.protocol.view import ALONE, TO_SINK
from peerloom.runtime.acting import Stage
from peerloom.runtime.brief import Brief, MemberStats
from peerloom.runtime.host import Host
from peerloom.runtime.journaling import open_journal
from peerloom.runtime.link import Link
from peerloom.runtime.rows import finish
from peerloom.runtime.settings import members
from peerloom.runtime.tidying import Tidying
from peerloom.services.llm.base import LLM
from peerloom.services.llm.cache.caching import CachingLLM
from peerloom.services.llm.limits.desk import Desk
from peerloom.task import Task, decode, encode


class PeerHost(Host):
    """One peer."""

    machine: Peer

    def __init__(self, brief: Brief, link: Link) -> None:
        alone, settings = brief.member.kind == ALONE, brief.settings
        machine = Peer(brief.member.name, alone=alone, keeps=alone and not settings.journal)
        super().__init__(machine, link, settings.deliver_seconds)
        self._brief = brief
        self._llm: LLM | None = None
        self._desk: Desk | None = None
        self._stage: Stage | None = None
        self._going = asyncio.Event()
        self._going.set()
        self._waiting = 0

    async def _open(self) -> None:
        assert self._brief.llm is not None
        if self._brief.settings.journal:
            self._journal = open_journal(self._brief, self)
        self._desk = Desk()
        self._llm = self._brief.llm.connect(self._desk)
        program = self._brief.program
        on_call = self._journal.call if self._journal is not None else None
        self._stage = Stage(program.workflow, program.agents, self._llm, on_call)

    async def _close(self) -> None:
        if self._llm is not None:
            await self._llm.close()

    def _begin(self) -> None:
        self.spawn(self._report())
        if self._journal is not None:
            kind, settings = self._brief.member.kind, self._brief.settings
            slots = members(settings, self._brief.program.workflow.roles)
            places = settings.partitions if kind == ALONE else sum(slot.kind == kind for slot in slots)
            tidying = Tidying(self._journal, places, self._ask_feeders)
            self.spawn(tidying.run())

    def _take_delivery(self, message: Deliver) -> Delivered:
        return self.machine.deliver(message)

    def _take_other(self, message: Message) -> Message | None:
        if isinstance(message, Grants) and self._desk is not None:
            self._desk.hear(message.data)
        elif isinstance(message, Pace) and self.machine.pace(message):
            if message.paused:
                self._going.clear()
            else:
                self._going.set()
        return None

    def _work(self) -> None:
        for item in self.machine.arrivals():
            self.spawn(self._carry(decode(item.payload)))
        for feeder, passed in self.machine.passed():
            self.spawn(self._send(feeder, passed))

    async def _report(self) -> None:
        """Tell the driver what the services are used for, and what is wanted of them."""
        assert self._desk is not None
        while True:
            self.tell(Readings(self.machine.name, await self._desk.report()))

    def _may_begin(self) -> bool:
        """Whether turns may begin: not while the run is paused, or the journal has no room for them."""
        return self._going.is_set() and (self._journal is None or not self._journal.stuck)

    async def _until_may_begin(self) -> None:
        self._waiting += 1
        try:
            while not self._may_begin():
                await self._going.wait()
                if self._journal is not None:
                    await self._journal.room()
        finally:
            self._waiting -= 1

    async def _carry(self, task: Task) -> None:
        """Take one task through the agents of this peer, then send it on."""
        stage, journal = self._stage, self._journal
        assert stage is not None
        while True:
            if not self._may_begin():
                await self._until_may_begin()
                if not self.machine.acts_on(task.header):
                    return  # another copy lives on: this one's turn would be paid in vain
            before, turns = task.header, len(task.raw_turns)
            task = await stage.step(task)
            target = TO_SINK if task.end is not None else task.next_role
            move = self.machine.move(before, task.header, target)
            if move is Move.GONE:
                return
            if journal is not None:
                journal.turn(task.header, task.raw_turns[turns:])
            if move is Move.AWAY:
                payload = encode(task) if task.end is None else finish(task, self._brief)
                self.machine.send(before, target, Item(task.header, payload))
                self.poke()
                return

    def _add_stats(self, stats: MemberStats) -> None:
        stats.turns = self.machine.acting - self._waiting
        if self._desk is not None:
            stats.turns = max(0, stats.turns - self._desk.waiting)
            stats.readings = self._desk.read(last=True) if self._stopping.is_set() else b""
        if isinstance(self._llm, CachingLLM):
            stats.cache = self._llm.tally
            stats.notices += self._llm.told
            self._llm.told.clear()
        if self._stage is not None:
            stats.hops = self._stage.hops
            stats.agents = self._stage.tallies
