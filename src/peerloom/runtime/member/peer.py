"""Run a peer, which takes tasks through the agents hosted there.

While the next role is hosted here, a hop is one iteration of a loop, and nothing is encoded. Synchronous
agents act one after the other in the flush that finds the task, and share one record of the journal; only
a task that must wait becomes an asyncio task. A turn is in the journal before its task is sent on.

A large task is sent without the turns that its next peer has (`transport/deltas.py`). When such a task
ends and its sink is on another host, a peer there that has the task renders the row, so that the turns are
not sent to that host once more.
"""

import asyncio
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from peerloom.protocol.leases.holder import Fenced
from peerloom.protocol.messages import (
    EndpointUpdate,
    HealthReport,
    Item,
    Message,
    Pace,
    QuotaGrants,
    UsageReports,
)
from peerloom.protocol.peer import Move, Peer, to_renderer
from peerloom.protocol.view import ALONE, PEER, TO_SINK
from peerloom.runtime.member.events import MemberStats
from peerloom.runtime.member.rows import finish
from peerloom.runtime.member.runtime import MemberRuntime
from peerloom.runtime.steps.executor import StepExecutor, StepSettings
from peerloom.runtime.steps.time_limit import Watchdog
from peerloom.services.base import ConnectedService
from peerloom.services.llm.base import LLM
from peerloom.services.llm.cache.client import CachingLLM
from peerloom.services.llm.client.context import ClientContext, Health
from peerloom.task import Header, Task, decode

PASS_SECONDS = 0.002  # of work in one flush, before other messages are handled


@asynccontextmanager
async def open_peer(member: MemberRuntime) -> "AsyncGenerator[PeerWork]":
    """Connect the services of a peer, and close them at the end."""
    assert member.spec.llm is not None

    def report_health(service: str, health: Health) -> None:
        member.emit(HealthReport(service, *health))

    context = ClientContext(on_health=report_health)
    async with AsyncExitStack() as stack:
        llm = member.spec.llm.connect(context)
        stack.push_async_callback(llm.close)
        services: dict[str, ConnectedService] = {}
        for name, spec in member.spec.services.items():
            limiter = context.limiter(name, limited=True) if spec.limits.bounded else None
            services[name] = ConnectedService(spec.policy, spec.connect(context), limiter)
            stack.push_async_callback(services[name].client.close)
        try:
            yield PeerWork(member, llm, context, services)
        finally:
            await stack.aclose()
            if usage := context.read_usage(last=True):
                member.emit(UsageReports(member.name, usage))


class PeerWork:
    """Takes tasks through the agents of one peer."""

    def __init__(
        self,
        member: MemberRuntime,
        llm: LLM,
        context: ClientContext,
        services: Mapping[str, ConnectedService],
    ) -> None:
        spec, settings = member.spec, member.spec.settings
        alone = spec.member.kind == ALONE
        self.machine = Peer(member.name, alone=alone, keep_to_end=alone and not settings.journal)
        self._member = member
        self._spec = spec
        self._journal = member.journal
        self._llm = llm
        self._context = context
        self._executor = StepExecutor(
            spec.program.workflow,
            spec.program.agents,
            llm,
            self._journal.call if self._journal is not None else None,
            member.ending,
            StepSettings(settings.timeouts, settings.record.requests != "off"),
            services,
            member.name,
        )
        self._unpaused = asyncio.Event()
        self._unpaused.set()
        self._waiting = 0
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[Item] = deque()
        member.background += [self._report_usage, Watchdog(StepExecutor.code(), self._warn).run]

    def on_message(self, message: Message) -> Message | None:
        """See `MemberWork`."""
        if isinstance(message, QuotaGrants):
            self._context.apply_grants(message.data)
        elif isinstance(message, EndpointUpdate):
            self._context.move(message.service, message.number, message.urls)
        elif isinstance(message, Pace) and self.machine.pace(message):
            if message.paused:
                self._unpaused.clear()
            else:
                self._unpaused.set()
        return None

    def process(self) -> None:
        """Start the tasks that have arrived, for a limited time; the next flush continues."""
        arrived = self._arrived
        arrived.extend(self.machine.arrivals())
        until = time.perf_counter() + PASS_SECONDS
        while arrived:
            payload = arrived.popleft().payload
            self._start_task(decode(payload) if isinstance(payload, bytes) else payload)
            if time.perf_counter() > until:
                break
        if arrived:
            self._member.schedule_flush()

    def messages(self) -> Iterable[tuple[str, Message]]:
        """Return the suspects that have left this peer, for their feeder."""
        return self.machine.passed()

    def stats(self) -> MemberStats:
        """See `MemberWork`."""
        executor, notice = self._executor, self._member.notice
        stats = MemberStats(
            turns=max(0, self.machine.acting - self._waiting - self._context.waiting),
            hops=executor.hops,
            agents=executor.tallies,
            errors=executor.errors.read(),
        )
        for text in self._context.new_notices():
            notice(text, once=True)
        if isinstance(self._llm, CachingLLM):
            stats.cache, notices = self._llm.tally, self._llm.notices
            while notices:
                notice(notices.pop(0))
        return stats

    def _warn(self, text: str) -> None:
        """Print a warning at once, and report it once the event loop, which is blocked, goes on."""
        print(f"{self._member.name}: {text}", file=sys.stderr, flush=True)
        self._loop.call_soon_threadsafe(self._member.notice, text)

    async def _report_usage(self) -> None:
        """Send usage reports to the driver."""
        while True:
            self._member.emit(UsageReports(self._member.name, await self._context.report_usage()))

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

    def _start_task(self, task: Task) -> None:
        """Take a task through synchronous agents, and start an asyncio task once it has to wait."""
        if task.end is not None:
            if self.machine.is_current(task.header):
                self._send_row(task.header, task)
                self._member.schedule_flush()
            return
        rest = self._run_steps(task, task)
        if rest is not None:
            self._member.spawn(self._run_task(*rest))

    async def _run_task(self, task: Task, begun: Awaitable[Task] | None) -> None:
        """Take a task through the agents of this peer, from a turn that may have begun, and send it on."""
        executor = self._executor
        rest: tuple[Task, Awaitable[Task] | None] | None = task, begun
        while rest is not None:
            task, begun = rest
            if begun is None:
                await self._until_may_begin()
                if not self.machine.is_current(task.header):
                    return  # obsolete: its turn would be paid in vain
            try:
                after = await (begun if begun is not None else executor.step(task))
            except Fenced:
                return  # a newer copy uses the leases of the task; a census discards this one
            rest = self._run_steps(task, after)

    def _run_steps(self, before: Task, task: Task) -> tuple[Task, Awaitable[Task] | None] | None:
        """Take `task`, made of the copy `before`, through synchronous agents as far as possible.

        Returns:
            The task with the turn to await, or with None if no turn may begin now; or None if the task was
            sent on or is obsolete.
        """
        executor = self._executor
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
            self.machine.send(before.header, target, self._member.codec.item(after))
        self._member.schedule_flush()

    def _send_row(self, before: Header, task: Task) -> None:
        """Render the row of a task that has ended, and send it to its sink."""
        self._member.codec.drop(task.header)
        self.machine.send(before, TO_SINK, Item(task.header, finish(task, self._spec)))

    def _row_target(self, task: Task) -> str:
        """Return the target of a task that has ended: its sink, or a peer that renders the row.

        Such a peer has most of the task's turns, and is on the host of the sink while this peer is not.
        """
        seen, view, host_of = self._member.codec.seen(task), self.machine.view, self._member.link.host_of
        sink = view.sink(task.id) if seen else None
        home = host_of(sink) if sink is not None else ""
        if not home or home == host_of(self.machine.name):
            return TO_SINK
        there = [peer.name for peer in view.of(PEER) if peer.name in seen and host_of(peer.name) == home]
        return to_renderer(max(there, key=seen.__getitem__)) if there else TO_SINK


def _target(task: Task) -> str:
    return TO_SINK if task.end is not None else task.next_role
