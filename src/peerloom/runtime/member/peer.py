"""Run a peer, which takes tasks through the agents hosted there.

While the next role is hosted here, a hop is one iteration of a loop, and nothing is encoded. Synchronous
agents act one after the other in the flush that finds the task, and share one record of the journal; only
a task that must wait becomes an asyncio task. A turn is in the journal before its task is sent on.

A large task is sent without the turns that its next peer has (`protocol/histories.py`). When such a task
ends and its sink is on another host, a peer there that has the task renders the row, so that the turns are
not sent to that host once more.
"""

import asyncio
import sys
import time
from collections import deque
from collections.abc import Awaitable

from peerloom.protocol.histories import Histories
from peerloom.protocol.messages import (
    Copy,
    Item,
    Message,
    Pace,
    QuotaGrants,
    UsageReports,
)
from peerloom.protocol.peer import Move, Peer
from peerloom.protocol.view import ALONE, PEER, TO_SINK, to_renderer
from peerloom.runtime.member.host import Host
from peerloom.runtime.member.journal import open_journal
from peerloom.runtime.member.rows import finish
from peerloom.runtime.member.spec import MemberSpec, MemberStats
from peerloom.runtime.steps.executor import StepExecutor
from peerloom.runtime.steps.time_limit import Watchdog
from peerloom.runtime.transport.base import Link
from peerloom.services.llm.base import LLM
from peerloom.services.llm.cache.client import CachingLLM
from peerloom.services.llm.limits.quota_client import QuotaClient
from peerloom.task import Header, Task, decode

MEGABYTE = 1_000_000
PASS_SECONDS = 0.002  # of work in one flush, before other messages are handled


class PeerHost(Host):
    """One peer."""

    machine: Peer

    def __init__(self, spec: MemberSpec, link: Link) -> None:
        alone, settings = spec.member.kind == ALONE, spec.settings
        name, keep_to_end = spec.member.name, alone and not settings.journal
        self._histories = Histories(name, int(settings.histories * MEGABYTE))
        machine = Peer(name, alone=alone, keep_to_end=keep_to_end, packing=self._histories)
        super().__init__(machine, spec, link)
        self._llm: LLM | None = None
        self._quota_client: QuotaClient | None = None
        self._executor: StepExecutor | None = None
        self._unpaused = asyncio.Event()
        self._unpaused.set()
        self._waiting = 0
        self._arrived: deque[Copy] = deque()

    async def _open(self) -> None:
        assert self._spec.llm is not None
        if self._spec.settings.journal:
            self._journal = open_journal(self._spec, self)
        self._quota_client = QuotaClient()
        self._llm = self._spec.llm.connect(self._quota_client)
        program = self._spec.program
        on_call = self._journal.call if self._journal is not None else None
        timeouts = self._spec.settings.timeouts
        self._executor = StepExecutor(
            program.workflow, program.agents, self._llm, on_call, self.ending, timeouts
        )

    async def _close(self) -> None:
        if self._llm is not None:
            await self._llm.close()

    def _start_background(self) -> None:
        self.spawn(self._report_usage())
        self.spawn(Watchdog(StepExecutor.code(), self._warn).run())

    def _warn(self, text: str) -> None:
        """Print a warning at once, since the event loop that forwards notices may be blocked."""
        print(f"{self.machine.name}: {text}", file=sys.stderr, flush=True)
        self.notice(text)

    def _on_message(self, message: Message) -> Message | None:
        if isinstance(message, QuotaGrants) and self._quota_client is not None:
            self._quota_client.apply_grants(message.data)
        elif isinstance(message, Pace) and self.machine.pace(message):
            if message.paused:
                self._unpaused.clear()
            else:
                self._unpaused.set()
        return None

    def _process(self) -> None:
        self._arrived.extend(self.machine.arrivals())
        self._start_arrived()

    def _send_outgoing(self) -> None:
        super()._send_outgoing()
        for feeder, passed in self.machine.passed():
            self.spawn(self._send(feeder, passed))

    async def _report_usage(self) -> None:
        """Send usage reports to the driver."""
        assert self._quota_client is not None
        while True:
            self.emit(UsageReports(self.machine.name, await self._quota_client.report()))

    def _may_begin(self) -> bool:
        """Return whether turns may begin: not while the run is paused or the disk is full."""
        return self._unpaused.is_set() and (self._journal is None or not self._journal.stuck)

    async def _until_may_begin(self) -> None:
        self._waiting += 1
        try:
            while not self._may_begin():
                await self._unpaused.wait()
                if self._journal is not None:
                    await self._journal.wait_for_room()
        finally:
            self._waiting -= 1

    def _start_arrived(self) -> None:
        """Start the tasks that have arrived, for a limited time; the next flush continues."""
        arrived = self._arrived
        until = time.perf_counter() + PASS_SECONDS
        while arrived:
            copy = arrived.popleft()
            self._start_task(decode(copy.payload) if isinstance(copy, Item) else copy)
            if time.perf_counter() > until:
                break
        if arrived:
            self.schedule_flush()

    def _start_task(self, task: Task) -> None:
        """Take a task through synchronous agents, and start an asyncio task once it has to wait."""
        if task.end is not None:
            if self.machine.is_current(task.header):
                self._send_row(task.header, task)
                self.schedule_flush()
            return
        rest = self._run_steps(task, task)
        if rest is not None:
            self.spawn(self._run_task(*rest))

    async def _run_task(self, task: Task, begun: Awaitable[Task] | None) -> None:
        """Take a task through the agents of this peer, from a turn that may have begun, and send it on."""
        executor = self._executor
        assert executor is not None
        rest: tuple[Task, Awaitable[Task] | None] | None = task, begun
        while rest is not None:
            task, begun = rest
            if begun is None:
                await self._until_may_begin()
                if not self.machine.is_current(task.header):
                    return  # obsolete: its turn would be paid in vain
            after = await (begun if begun is not None else executor.step(task))
            rest = self._run_steps(task, after)

    def _run_steps(self, before: Task, task: Task) -> tuple[Task, Awaitable[Task] | None] | None:
        """Take `task`, made of the copy `before`, through synchronous agents as far as possible.

        Returns:
            The task with the turn to await, or with None if no turn may begin now; or None if the task was
            sent on or is obsolete.
        """
        executor = self._executor
        assert executor is not None
        if not self.machine.is_current(before.header):
            return None
        while task is before or self.machine.stays(_target(task)):
            begun = executor.begin(task) if self._may_begin() else None
            if not isinstance(begun, Task):
                if task is not before:
                    self._finish_steps(before, task)
                return task, begun
            task = begun
        self._finish_steps(before, task)
        return None

    def _finish_steps(self, before: Task, after: Task) -> None:
        """Record the turns between two copies, and send the task on if its next agent is not here."""
        header, target = after.header, _target(after)
        hops = header.hop - before.header.hop
        if self._journal is not None:
            self._journal.turn(header, after.raw_turns[len(before.raw_turns) :], hops)
        if self.machine.move(before.header, header, target) is Move.HERE:
            return
        if after.end is not None:
            target = self._row_target(after)
        if target == TO_SINK:
            self._send_row(before.header, after)
        else:
            self.machine.send(before.header, target, after)
        self.schedule_flush()

    def _send_row(self, before: Header, task: Task) -> None:
        """Render the row of a task that has ended, and send it to its sink."""
        assert self._executor is not None
        self._histories.drop(task.header)
        self.machine.send(before, TO_SINK, Item(task.header, finish(task, self._spec, self._executor.errors)))

    def _row_target(self, task: Task) -> str:
        """Return the target of a task that has ended: its sink, or a peer that renders the row.

        Such a peer has most of the task's turns, and is on the host of the sink while this peer is not.
        """
        seen, view, host_of = self._histories.seen(task), self.machine.view, self._link.host_of
        sink = view.sink(task.id) if seen else None
        home = host_of(sink) if sink is not None else ""
        if not home or home == host_of(self.machine.name):
            return TO_SINK
        there = [peer.name for peer in view.of(PEER) if peer.name in seen and host_of(peer.name) == home]
        return to_renderer(max(there, key=seen.__getitem__)) if there else TO_SINK

    def _fill_stats(self, stats: MemberStats) -> None:
        stats.turns = self.machine.acting - self._waiting
        if self._quota_client is not None:
            stats.turns = max(0, stats.turns - self._quota_client.waiting)
            stats.usage_reports = self._quota_client.read(last=True) if self._stopping.is_set() else b""
            stats.shared_notices = self._quota_client.new_notices()
        if isinstance(self._llm, CachingLLM):
            stats.cache = self._llm.tally
            stats.notices += self._llm.notices
            self._llm.notices.clear()
        if self._executor is not None:
            stats.hops = self._executor.hops
            stats.agents = self._executor.tallies
            stats.errors = self._executor.errors.read(last=self._stopping.is_set())


def _target(task: Task) -> str:
    return TO_SINK if task.end is not None else task.next_role
