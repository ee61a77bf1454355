"""Run the state machine of a member: receive messages, and send the outgoing ones.

Everything runs on one event loop. Received messages only change the state. A flush, at most once per
iteration of the loop (`schedule_flush`), sends all outgoing messages together. All asyncio tasks of a member
live in one task group. An unexpected error in any of them ends the member, which is then replaced.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, cast

from peerloom.protocol.messages import (
    Deliver,
    Delivered,
    DoneQuery,
    DoneReply,
    Message,
    Prepare,
    Suspect,
    ToCoordinator,
    UsageReports,
    ViewCommit,
    decode,
    encode,
)
from peerloom.protocol.participant import Participant
from peerloom.protocol.view import ALONE, FEEDER
from peerloom.runtime.member.compaction import JournalCompactor
from peerloom.runtime.member.journal import MemberJournal
from peerloom.runtime.member.spec import MemberSpec, MemberStats
from peerloom.runtime.settings import members
from peerloom.runtime.transport.base import Link, Unreachable
from peerloom.runtime.transport.deadline import Deadline
from peerloom.task import TaskId


class Host(ABC):
    """The base class of feeders, sinks, and peers.

    Args:
        machine: the protocol state of the member.
        spec: the specification of the member.
        link: sends messages to other members.
    """

    def __init__(self, machine: Participant, spec: MemberSpec, link: Link) -> None:
        self.machine = machine
        self._spec = spec
        self._link = link
        self._events: asyncio.Queue[ToCoordinator | UsageReports | None] = asyncio.Queue()
        self._stopping = asyncio.Event()
        self._ready = asyncio.Event()
        self._flush_scheduled = False
        self._group: asyncio.TaskGroup | None = None
        self._main: asyncio.Task[Any] | None = None
        self._ending = False
        self._failure: Exception | None = None
        self._notices: list[str] = []
        self._journal: MemberJournal | None = None

    async def run(self) -> MemberStats:
        """Run until `stop`, and return the final statistics. Raise the error that ends the member earlier."""
        self._main = asyncio.current_task()
        await self._open()
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._ready.set()
                self._start_background()
                if self._journal is not None:
                    compactor = JournalCompactor(self._journal, self._places(), self._find_done)
                    self.spawn(compactor.run())
                await self._until_stopped()
        except* _MemberStopped:
            pass
        except* Exception as errors:
            self._failure = self._failure or errors.exceptions[0]
        finally:
            self._group = None
            self._events.put_nowait(None)
            await self._close()
            if self._journal is not None:
                self._journal.close()
        if self._failure is not None:
            raise self._failure
        return self.stats()

    async def ready(self) -> None:
        """Wait until the member accepts messages."""
        await self._ready.wait()

    def stop(self) -> None:
        """Stop the member, and drop the tasks that it still holds."""
        self._stopping.set()

    def handle(self, data: bytes) -> bytes:
        """Handle an encoded message, and return the encoded answer; empty if there is none."""
        answer = self._dispatch(decode(data))
        self.schedule_flush()
        return encode(answer) if answer is not None else b""

    async def poll_events(self) -> list[bytes]:
        """Wait for messages to the driver, and return them encoded.

        Raises:
            Unreachable: when the member has ended.
        """
        messages = [await self._events.get()]
        while not self._events.empty():
            messages.append(self._events.get_nowait())
        events = [encode(message) for message in messages if message is not None]
        if not events:
            raise Unreachable(f"{self.machine.name} has ended")
        return events

    def stats(self) -> MemberStats:
        """Return the statistics of the member, with the notices since the last call."""
        notices, self._notices = self._notices, []
        stats = MemberStats(cpu_seconds=time.process_time(), notices=notices)
        if self._journal is not None:
            stats.stuck = self._journal.stuck
        self._fill_stats(stats)
        return stats

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
        kind, settings = self._spec.member.kind, self._spec.settings
        if kind == ALONE:
            return settings.partitions
        return sum(slot.kind == kind for slot in members(settings, self._spec.program.workflow.roles))

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._stopping.set()

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._stopping.is_set():
            return
        try:
            self._process()
            report = self.machine.report()
            if report is not None:
                self.emit(report)
            if self._may_send():
                self._send_outgoing()
        except Exception as error:
            self._fail(error)

    def _send_outgoing(self) -> None:
        """Send the outgoing messages."""
        for destination, deliver in self.machine.outgoing():
            self.spawn(self._deliver(destination, deliver))

    async def _deliver(self, destination: str, deliver: Deliver) -> None:
        try:
            async with Deadline(self._spec.settings.deliver_seconds):
                answer = decode(await self._link.send(destination, encode(deliver)))
        except (Unreachable, TimeoutError):
            if self.machine.failed(destination, deliver.seq):
                self.suspect(destination)
        else:
            if isinstance(answer, Delivered):
                self.machine.answered(destination, answer)
        self.schedule_flush()

    async def _send(self, member: str, message: Message) -> None:
        """Send a message without an answer."""
        try:
            await self._link.send(member, encode(message))
        except Unreachable:
            self.suspect(member)
            self.schedule_flush()

    def suspect(self, member: str) -> None:
        """Report to the coordinator that a member does not answer."""
        self.emit(Suspect(self.machine.view.number, self.machine.name, member))

    def emit(self, message: ToCoordinator | UsageReports) -> None:
        """Queue a message to the driver and its coordinator."""
        self._events.put_nowait(message)

    def notice(self, text: str) -> None:
        """Add a message for the user to the next statistics."""
        self._notices.append(text)

    def _dispatch(self, message: Message) -> Message | None:
        match message:
            case Deliver():
                return self.machine.deliver(message)
            case Prepare():
                self.machine.prepare(message)
            case ViewCommit():
                self.machine.commit_view(message)
            case _:
                return self._on_message(message)
        return None

    async def _find_done(self, ids: list[TaskId]) -> list[TaskId]:
        """Ask the feeders which of these tasks are done; feeders that do not answer are skipped."""
        view, name = self.machine.view, self.machine.name
        done: list[TaskId] = []
        for feeder in view.of(FEEDER):
            mine = [id for id in ids if view.feeder(id) == feeder.name]
            if mine:
                question = encode(DoneQuery(view.number, name, mine))
                with suppress(Unreachable, TimeoutError):
                    async with Deadline(self._spec.settings.deliver_seconds):
                        answer = await self._link.send(feeder.name, question)
                    done += cast("DoneReply", decode(answer)).ids
        return done

    async def _until_stopped(self) -> None:
        try:
            await self._stopping.wait()
        finally:  # also entered when a task of the group has failed
            self._ending = True
        raise _MemberStopped

    def _on_message(self, message: Message) -> Message | None:
        """Handle a message that only some kinds of members understand."""
        return None

    @abstractmethod
    def _process(self) -> None:
        """Start the work that the state of the machine requires. Must not block."""

    def _may_send(self) -> bool:
        """Write the journal, and return whether outgoing messages may be sent: not if the disk is full."""
        return self._journal is None or self._journal.flush()

    @abstractmethod
    def _fill_stats(self, stats: MemberStats) -> None:
        """Fill in the statistics of this kind of member."""

    def _start_background(self) -> None:  # noqa: B027 - not every kind has background work
        """Start background tasks."""

    async def _open(self) -> None:  # noqa: B027 - not every kind has resources to open
        """Acquire resources, in the event loop of the member."""

    async def _close(self) -> None:  # noqa: B027
        """Release the resources."""


class _MemberStopped(Exception):
    """Ends a member's task group, which cancels its remaining tasks."""
