"""Drives one member's state machine: decodes what arrives, sends what is to be sent.

Everything runs on one event loop. What arrives is only taken in; sending happens in one pass per turn
of the loop (`schedule_flush`), so whatever has gathered by then goes out together. All tasks live in one task
group. A defect in any of them, or in the pass itself, ends the member with that very error, which the
run then treats like any other death.
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
from peerloom.protocol.view import FEEDER
from peerloom.runtime.member.journal import MemberJournal
from peerloom.runtime.member.spec import MemberStats
from peerloom.runtime.transport.base import Link, Unreachable
from peerloom.runtime.transport.deadline import Deadline
from peerloom.task import TaskId


class Host(ABC):
    """Base of the three kinds of member.

    Args:
        machine: the member's protocol state.
        link: reaches the other members.
        deliver_seconds: how long a delivery may stay unanswered before its receiver is suspected.
    """

    def __init__(self, machine: Participant, link: Link, deliver_seconds: float) -> None:
        self.machine = machine
        self._link = link
        self._deliver_seconds = deliver_seconds
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
        """Live until `stop`; the last figures. Raises whatever ended the member before that."""
        self._main = asyncio.current_task()
        await self._open()
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._ready.set()
                self._start_background()
                await self._until_stopped()
        except* _Stopped:
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
        """Wait until messages are taken in."""
        await self._ready.wait()

    def stop(self) -> None:
        """End the member; what it still holds is dropped."""
        self._stopping.set()

    async def receive(self, data: bytes) -> bytes:
        """As `hear`, for engines that call and wait."""
        return self.handle(data)

    def handle(self, data: bytes) -> bytes:
        """Take one encoded message in; the encoded answer, empty if it has none."""
        answer = self._dispatch(decode(data))
        self.schedule_flush()
        return encode(answer) if answer is not None else b""

    async def poll_events(self) -> list[bytes]:
        """What this member has to tell the coordinator; waits until there is something.

        Raises:
            Unreachable: when the member has ended.
        """
        messages = [await self._events.get()]
        while not self._events.empty():
            messages.append(self._events.get_nowait())
        notified = [encode(message) for message in messages if message is not None]
        if not notified:
            raise Unreachable(f"{self.machine.name} has ended")
        return notified

    def stats(self) -> MemberStats:
        """The member's figures; notices are handed out once."""
        notices, self._notices = self._notices, []
        stats = MemberStats(cpu_seconds=time.process_time(), notices=notices)
        if self._journal is not None:
            stats.stuck = self._journal.stuck
        self._fill_stats(stats)
        return stats

    def schedule_flush(self) -> None:
        """Send what there is to send, soon, once."""
        if not self._flush_scheduled and self._group is not None:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the loop's other tasks; if it fails, the member does."""
        if self._group is None or self._stopping.is_set():
            work.close()
        else:
            self._group.create_task(work)

    def ending(self) -> bool:
        """Whether the member ends, so that its group cancels what runs in it."""
        return (
            self._group is None
            or self._ending
            or self._stopping.is_set()
            or (self._main is not None and self._main.cancelling() > 0)
        )

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
        """Send what there is to send, now that it may leave."""
        for destination, deliver in self.machine.outgoing():
            self.spawn(self._deliver(destination, deliver))

    async def _deliver(self, destination: str, deliver: Deliver) -> None:
        try:
            async with Deadline(self._deliver_seconds):
                answer = decode(await self._link.send(destination, encode(deliver)))
        except (Unreachable, TimeoutError):
            if self.machine.failed(destination, deliver.seq):
                self.suspect(destination)
        else:
            if isinstance(answer, Delivered):
                self.machine.answered(destination, answer)
        self.schedule_flush()

    async def _send(self, member: str, message: Message) -> None:
        """Send a message that has no answer."""
        try:
            await self._link.send(member, encode(message))
        except Unreachable:
            self.suspect(member)
            self.schedule_flush()

    def suspect(self, member: str) -> None:
        """Tell the coordinator that a member does not answer."""
        self.emit(Suspect(self.machine.view.number, self.machine.name, member))

    def emit(self, message: ToCoordinator | UsageReports) -> None:
        """Tell the coordinator, or the driver it lives in, something."""
        self._events.put_nowait(message)

    def notice(self, text: str) -> None:
        """Something for a person to read; it travels with the figures."""
        self._notices.append(text)

    def _dispatch(self, message: Message) -> Message | None:
        match message:
            case Deliver():
                return self._on_delivery(message)
            case Prepare():
                self.machine.prepare(message)
            case ViewCommit():
                self.machine.commit_view(message)
            case _:
                return self._on_message(message)
        return None

    async def _find_done(self, ids: list[TaskId]) -> list[TaskId]:
        """Which of these tasks are done, as far as the feeders can be reached."""
        view, name = self.machine.view, self.machine.name
        done: list[TaskId] = []
        for feeder in view.of(FEEDER):
            mine = [id for id in ids if view.feeder(id) == feeder.name]
            if mine:
                question = encode(DoneQuery(view.number, name, mine))
                with suppress(Unreachable, TimeoutError):
                    async with Deadline(self._deliver_seconds):
                        answer = await self._link.send(feeder.name, question)
                    done += cast("DoneReply", decode(answer)).ids
        return done

    async def _until_stopped(self) -> None:
        try:
            await self._stopping.wait()
        finally:  # or what it has spawned has failed
            self._ending = True
        raise _Stopped

    @abstractmethod
    def _on_delivery(self, message: Deliver) -> Delivered:
        """Take tasks in."""

    def _on_message(self, message: Message) -> Message | None:
        """Take a message that only some kinds of member understand; others ignore it."""
        return None

    @abstractmethod
    def _process(self) -> None:
        """Start whatever the machine's state asks for. Must not block."""

    def _may_send(self) -> bool:
        """Make sure that whatever leaves now would not be missed if this process died."""
        return self._journal is None or self._journal.flush()

    @abstractmethod
    def _fill_stats(self, stats: MemberStats) -> None:
        """Fill in what this kind of member knows."""

    def _start_background(self) -> None:  # noqa: B027 - nor something to do all along
        """Start what runs beside everything else."""

    async def _open(self) -> None:  # noqa: B027 - not every kind has something to open
        """Acquire what the member needs, in its own loop."""

    async def _close(self) -> None:  # noqa: B027
        """Give it back."""


class _Stopped(Exception):
    """Ends a member's task group; whatever still runs in it is cancelled."""
