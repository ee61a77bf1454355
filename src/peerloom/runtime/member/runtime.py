"""Run a member: receive messages, do its work, and send the outgoing messages.

Everything runs on one event loop. Received messages only change the state. A flush, at most once per
iteration of the loop (`schedule_flush`), sends all outgoing messages together. All asyncio tasks of a member
live in one task group. An unexpected error in any of them ends the member, which is then replaced.

The protocol's state machine and the work of the kind of member are in a `MemberWork`.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, ExitStack, suppress
from typing import Any, Protocol, cast

from peerloom.protocol.messages import (
    Deliver,
    Delivered,
    DoneQuery,
    DoneReply,
    Message,
    Prepare,
    Suspect,
    ViewCommit,
    decode,
    encode,
)
from peerloom.protocol.participant import Participant
from peerloom.protocol.view import ALONE, FEEDER, PEER, SINK
from peerloom.runtime.member.compaction import JournalCompactor
from peerloom.runtime.member.events import (
    FIRST_SECONDS,
    STATS_SECONDS,
    EventStream,
    MemberEvent,
    MemberNotice,
    MemberStats,
)
from peerloom.runtime.member.journal import MemberJournal, open_journal
from peerloom.runtime.member.spec import MemberSpec
from peerloom.runtime.settings import members
from peerloom.runtime.transport.base import Link, Unreachable
from peerloom.runtime.transport.deadline import Deadline
from peerloom.runtime.transport.deltas import DeltaCodec
from peerloom.task import TaskId

MEGABYTE = 1_000_000


class MemberWork(Protocol):
    """The work of one kind of member, around its state machine."""

    @property
    def machine(self) -> Participant:
        """The protocol state of the member."""
        ...

    def on_message(self, message: Message) -> Message | None:
        """Handle a message that only this kind of member understands, and return the answer, if any."""
        ...

    def process(self) -> None:
        """Start the work that the state of the machine requires. Must not block."""
        ...

    def messages(self) -> Iterable[tuple[str, Message]]:
        """Return messages to other members that need no answer, to be sent now."""
        ...

    def stats(self) -> MemberStats:
        """Return the statistics of this kind of member, after reporting its notices."""
        ...


class MemberRuntime:
    """Runs one member; `open_work` starts its work, and ends it when its context is left.

    The coroutine functions in `background` are started when the member accepts messages.
    """

    _work: MemberWork  # once the member is ready; no message is sent to it before

    def __init__(
        self,
        spec: MemberSpec,
        link: Link,
        open_work: "Callable[[MemberRuntime], AbstractAsyncContextManager[MemberWork]]",
    ) -> None:
        self.spec = spec
        self.link = link
        self.name = spec.member.name
        self.journal: MemberJournal | None = None
        caches = spec.member.kind in (PEER, ALONE)
        self.codec = DeltaCodec(self.name, int(spec.settings.histories * MEGABYTE) if caches else 0)
        self.background: list[Callable[[], Coroutine[Any, Any, None]]] = [self._report_stats]
        self._stopping = asyncio.Event()
        self._open_work = open_work
        self._events = EventStream()
        self._ready = asyncio.Event()
        self._flush_scheduled = False
        self._group: asyncio.TaskGroup | None = None
        self._main: asyncio.Task[Any] | None = None
        self._ending = False
        self._failure: Exception | None = None

    async def run(self) -> None:
        """Run until `stop`. Raise the error that ends the member earlier."""
        self._main = asyncio.current_task()
        with ExitStack() as stack:
            stack.callback(self._events.end)
            if self.spec.settings.journal and self.spec.member.kind != SINK:
                self.journal = open_journal(self.spec, self)
                stack.callback(self.journal.close)
                compactor = JournalCompactor(self.journal, self._places(), self._find_done)
                self.background.append(compactor.run)
            async with self._open_work(self) as self._work:
                await self._run_tasks()
            self._emit_stats()
        if self._failure is not None:
            raise self._failure

    async def _run_tasks(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._ready.set()
                for run in self.background:
                    self.spawn(run())
                await self._until_stopped()
        except* _MemberStopped:
            pass
        except* Exception as errors:
            self._failure = self._failure or errors.exceptions[0]
        finally:
            self._group = None

    async def ready(self) -> None:
        """Wait until the member accepts messages."""
        await self._ready.wait()

    def stop(self) -> None:
        """Stop the member, and drop the tasks that it still holds."""
        self._stopping.set()

    def handle(self, data: bytes) -> bytes:
        """Handle an encoded message, and return the encoded answer; empty if there is none."""
        answer = self.codec.receive(data, self._dispatch)
        self.schedule_flush()
        return answer

    async def poll_events(self, received: int) -> list[bytes]:
        """Wait for the events after the first `received` ones; empty once the member has ended."""
        return await self._events.poll(received)

    def schedule_flush(self) -> None:
        """Schedule one flush for the next iteration of the event loop."""
        if not self._flush_scheduled and self._group is not None:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a task in the member's task group; an error in it ends the member."""
        if self._group is None or self._stopping.is_set():
            work.close()
        else:
            self._group.create_task(work)

    def ending(self) -> bool:
        """Return whether the member is ending, so that its task group is being cancelled."""
        return (
            self._group is None
            or self._ending
            or self._stopping.is_set()
            or (self._main is not None and self._main.cancelling() > 0)
        )

    def _places(self) -> int:
        """Return the number of slots for this kind of member."""
        kind, settings = self.spec.member.kind, self.spec.settings
        if kind == ALONE:
            return settings.partitions
        return sum(slot.kind == kind for slot in members(settings, self.spec.program.workflow.roles))

    def _flush(self) -> None:
        self._flush_scheduled = False
        work = self._work
        if self._stopping.is_set():
            return
        try:
            work.process()
            report = work.machine.report()
            if report is not None:
                self.emit(report)
            if self.journal is None or self.journal.flush():
                for destination, deliver in work.machine.outgoing():
                    self.spawn(self._deliver(destination, deliver))
                for member, message in work.messages():
                    self.spawn(self._send(member, message))
        except Exception as error:
            self._failure = self._failure or error
            self._stopping.set()

    async def _deliver(self, destination: str, deliver: Deliver) -> None:
        try:
            async with Deadline(self.spec.settings.deliver_seconds):
                answer = await self.codec.send(self.link, destination, deliver)
        except (Unreachable, TimeoutError):
            if self._work.machine.failed(destination, deliver.seq):
                self.suspect(destination)
        else:
            if isinstance(answer, Delivered):
                self._work.machine.answered(destination, answer)
        self.schedule_flush()

    async def _send(self, member: str, message: Message) -> None:
        """Send a message without an answer."""
        try:
            await self.link.send(member, encode(message))
        except Unreachable:
            self.suspect(member)
            self.schedule_flush()

    def suspect(self, member: str) -> None:
        """Report to the coordinator that a member does not answer."""
        self.emit(Suspect(self._work.machine.view.number, self.name, member))

    def emit(self, event: MemberEvent) -> None:
        """Report an event to the driver."""
        self._events.emit(event)

    def notice(self, text: str, *, once: bool = False) -> None:
        """Report a message for the user; with `once`, other members may report it too."""
        self.emit(MemberNotice(text, once))

    async def _report_stats(self) -> None:
        pause = FIRST_SECONDS
        while True:
            await asyncio.sleep(pause)
            self._emit_stats()
            if self._work.machine.view.number:
                pause = min(STATS_SECONDS, 2 * pause)

    def _emit_stats(self) -> None:
        stats = self._work.stats()
        if self.journal is not None:
            stats.stuck = self.journal.stuck
        local = self.spec.settings.engine == "local"  # the driver counts the time of its own process
        self._events.emit_stats(stats, 0.0 if local else time.process_time())

    def _dispatch(self, message: Message) -> Message | None:
        machine = self._work.machine
        match message:
            case Deliver():
                return machine.deliver(message)
            case Prepare():
                machine.prepare(message)
            case ViewCommit():
                machine.commit_view(message)
            case _:
                return self._work.on_message(message)
        return None

    async def _find_done(self, ids: list[TaskId]) -> list[TaskId]:
        """Ask the feeders which of these tasks are done; feeders that do not answer are skipped."""
        view, name = self._work.machine.view, self.name
        done: list[TaskId] = []
        for feeder in view.of(FEEDER):
            mine = [id for id in ids if view.feeder(id) == feeder.name]
            if mine:
                question = encode(DoneQuery(view.number, name, mine))
                with suppress(Unreachable, TimeoutError):
                    async with Deadline(self.spec.settings.deliver_seconds):
                        answer = await self.link.send(feeder.name, question)
                    done += cast("DoneReply", decode(answer)).ids
        return done

    async def _until_stopped(self) -> None:
        try:
            await self._stopping.wait()
        finally:  # also entered when a task of the group has failed
            self._ending = True
        raise _MemberStopped


class _MemberStopped(Exception):
    """Ends a member's task group, which cancels its remaining tasks."""
