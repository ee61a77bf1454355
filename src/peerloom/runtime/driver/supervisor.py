"""Drives the coordinator: starts members, hears them, notices their death, carries out its effects.

A member is lost when its process ends, when it gives no sign of life in time, or when another member
suspects it. Each has three watchers here: for its end, for what it tells, for its heartbeat. One that
cannot start because there is no room for it, in the cluster or on the disk, waits: that is no death, and
the others go on.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from peerloom.errors import EngineError
from peerloom.events import MemberJoined, MemberLost, Notice, ViewChanged
from peerloom.protocol.coordinator import Coordinator, Kill, Send, Spawn
from peerloom.protocol.messages import (
    Drain,
    Message,
    Pace,
    QuotaGrants,
    ToCoordinator,
    UsageReports,
    decode,
    encode,
)
from peerloom.protocol.view import ALONE, FEEDER, SINK, Member
from peerloom.runtime.engine import Engine
from peerloom.runtime.member.spec import MemberSpec, MemberStats, decode_stats
from peerloom.runtime.settings import RunSettings, members
from peerloom.runtime.transport.base import NoRoom, Unreachable
from peerloom.runtime.transport.deadline import Deadline

MAX_DEATHS_IN_A_ROW = 10
MAX_WAIT_SECONDS = 5.0  # before a slot that keeps dying, or finds no room, is filled again
STOP_SECONDS = 10.0
HEARD_SECONDS = 5.0

Event = MemberJoined | MemberLost | ViewChanged | Notice


class Supervisor:
    """The members of one run.

    Args:
        engine: starts and reaches them.
        settings: how many, and how soon one is suspected.
        roles: the workflow's roles.
        brief: what a member is told.
        on_event: hears of views, losses and waits.
        on_finished: called when every task is committed.
        on_readings: hears what a member uses of the services, and wants of them.
        first: number of the first view, and of the members' first incarnations.
    """

    def __init__(
        self,
        engine: Engine,
        settings: RunSettings,
        roles: tuple[str, ...],
        brief: Callable[[Member], MemberSpec],
        on_event: Callable[[Event], None],
        on_finished: Callable[[], None],
        on_readings: Callable[[str, bytes], None],
        *,
        first: int = 1,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._brief = brief
        self._on_event = on_event
        self._coordinator = Coordinator(
            members(settings, roles, first),
            settings.partitions,
            settings.shards,
            journal=settings.journal,
            earlier=first - 1,
        )
        self._on_finished = on_finished
        self._on_readings = on_readings
        self._draining = False
        self._pace = Pace(0, settings.in_flight, False)
        self._telling: set[asyncio.Task[None]] = set()
        self._ending = False
        self._deaths_in_a_row: dict[str, int] = {}
        self._without_room: set[str] = set()
        self._view_told = 0
        self._group: asyncio.TaskGroup | None = None

    @property
    def names(self) -> list[str]:
        """The members there are."""
        return [member.name for member in self._coordinator.view.members]

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start the members; their watchers live in `group`.

        In the group an `EngineError` is raised if a member dies again and again.
        """
        self._group = group
        self._coordinator.start()
        self._advance()

    def drain(self) -> None:
        """Admit nothing more; the run finishes when what is in flight is committed."""
        self._draining = True
        if self._ending:
            return
        for name in self._engine.names() if self._group is not None else ():
            if name.startswith(FEEDER):
                self._tell(name, Drain())

    def go_at(self, settings: RunSettings, *, paused: bool) -> None:
        """Take over changed settings; while `paused`, nothing is admitted and no turn begins."""
        self._settings = settings
        if self._ending or (settings.in_flight, paused) == (self._pace.in_flight, self._pace.paused):
            return
        self._pace = Pace(self._pace.number + 1, settings.in_flight, paused)
        for name in self._engine.names() if self._group is not None else ():
            if _has_pace(name):
                self._tell(name, self._pace)

    def grant(self, name: str, data: bytes) -> None:
        """Tell a member what it may use of the services, unless it is gone."""
        if not self._ending and self._group is not None and name in self._engine.names():
            self._spawn_task(self._send(name, QuotaGrants(data)))

    async def heard(self) -> None:
        """Wait until the members have taken in what they were told; one that cannot is lost soon."""
        if self._telling:
            await asyncio.wait(self._telling, timeout=HEARD_SECONDS)

    def census(self) -> None:
        """Look where everything is; asked for when a permit has been out for long."""
        self._coordinator.census()
        self._advance()

    def progressed(self) -> None:
        """Rows have been committed: whoever dies from now on is not dying in a row."""
        self._deaths_in_a_row.clear()

    def condemned(self) -> None:
        """Rows of poison tasks have been committed: what those did to their quarantine is over."""
        for slot in [slot for slot in self._deaths_in_a_row if slot.startswith(ALONE)]:
            del self._deaths_in_a_row[slot]

    async def stop(self, on_stats: Callable[[str, MemberStats], None]) -> None:
        """Ask all members to stop, sinks last, and hand on their last figures."""
        self._ending = True
        members = self._coordinator.view.members
        for sinks in (False, True):
            async with asyncio.TaskGroup() as group:
                for member in members:
                    if (member.kind == SINK) is sinks:
                        group.create_task(self._stop(member.name, on_stats))

    async def _stop(self, name: str, on_stats: Callable[[str, MemberStats], None]) -> None:
        with contextlib.suppress(Unreachable, EngineError, TimeoutError):
            async with Deadline(STOP_SECONDS):
                await self._engine.stop(name)
                on_stats(name, decode_stats(await self._engine.wait(name)))

    def _advance(self) -> None:
        for effect in self._coordinator.effects():
            match effect:
                case Send():
                    self._spawn_task(self._send(effect.to, effect.message))
                case Kill():
                    self._bury(effect)
                case Spawn():
                    self._spawn_task(self._start(effect.member))
        view = self._coordinator.view
        if self._coordinator.settled and view.number > self._view_told:
            self._view_told = view.number
            self._on_event(ViewChanged(view.number, tuple(sorted(view.names))))
        if self._coordinator.finished:
            self._on_finished()

    async def _start(self, member: Member) -> None:
        slot = _slot(member.name)
        await asyncio.sleep(self._delay(slot))
        try:
            node, pid = await self._engine.spawn(self._brief(member), lambda why: self._wait(member, why))
        except NoRoom as error:
            self._wait(member, str(error))
            self._lose(member.name, str(error))
            return
        except Unreachable as error:
            self._without_room.discard(slot)
            self._lose(member.name, str(error))
            return
        self._wait_no_more(slot)
        self._spawn_task(self._await_end(member.name))
        self._spawn_task(self._listen(member.name))
        self._spawn_task(self._watch_heart(member.name))
        async with asyncio.TaskGroup() as group:
            for name in self._engine.names():
                group.create_task(self._introduce(name))
        self._on_event(MemberJoined(member.name, node, pid))
        if self._pace.number and _has_pace(member.name):
            await self._send(member.name, self._pace)  # before it takes part
        if self._draining and member.kind == FEEDER:
            self._tell(member.name, Drain())
        self._coordinator.joined(member.name)
        self._advance()

    def _delay(self, slot: str) -> float:
        deaths = self._deaths_in_a_row.get(slot, 0)
        if slot in self._without_room:
            return MAX_WAIT_SECONDS
        return min(MAX_WAIT_SECONDS, 0.1 * 2**deaths) if deaths else 0

    def _wait(self, member: Member, why: str) -> None:
        slot = _slot(member.name)
        self._coordinator.waits(member.name)
        self._advance()
        if slot not in self._without_room:
            self._without_room.add(slot)
            self._on_event(Notice("warning", f"{slot} cannot start yet, the others go on without it: {why}"))

    def _wait_no_more(self, slot: str) -> None:
        if slot in self._without_room:
            self._without_room.remove(slot)
            self._on_event(Notice("info", f"{slot} has room now, and takes part"))

    async def _introduce(self, name: str) -> None:
        try:
            async with Deadline(self._settings.deliver_seconds):
                await self._engine.introduce(name)
        except (Unreachable, TimeoutError) as error:
            self._lose(name, f"did not hear of the others: {error}")

    def _tell(self, name: str, message: Message) -> None:
        telling = self._spawn_task(self._send(name, message))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _send(self, name: str, message: Message) -> None:
        try:
            async with Deadline(self._settings.deliver_seconds):
                await self._engine.tell(name, encode(message))
        except Unreachable as error:
            self._lose(name, str(error))
        except TimeoutError:
            self._lose(name, f"took no message in for {self._settings.deliver_seconds:g} s")

    async def _await_end(self, name: str) -> None:
        try:
            await self._engine.wait(name)
        except Unreachable as error:
            self._lose(name, str(error))

    async def _listen(self, name: str) -> None:
        try:
            while True:
                for data in await self._engine.listen(name):
                    self._hear(decode(data))
        except Unreachable:
            return  # whoever awaits the member's end knows why

    def _hear(self, message: Message) -> None:
        if isinstance(message, UsageReports):
            self._on_readings(message.sender, message.data)
        elif isinstance(message, ToCoordinator):
            self._coordinator.receive(message)
            self._advance()

    async def _watch_heart(self, name: str) -> None:
        while True:
            await asyncio.sleep(self._settings.heartbeat_seconds)
            try:
                async with Deadline(self._settings.suspect_seconds):
                    await self._engine.ping(name)
            except TimeoutError:
                self._lose(name, f"no sign of life for {self._settings.suspect_seconds:g} s")
                return
            except Unreachable:
                return

    def _lose(self, name: str, why: str) -> None:
        if not self._ending:
            self._coordinator.lost(name, why)
            self._advance()

    def _bury(self, kill: Kill) -> None:
        self._engine.kill(kill.name)
        slot = _slot(kill.name)
        if slot in self._without_room:
            return
        self._on_event(MemberLost(kill.name, kill.why))
        deaths = self._deaths_in_a_row[slot] = self._deaths_in_a_row.get(slot, 0) + 1
        if deaths >= MAX_DEATHS_IN_A_ROW:
            raise EngineError(f"{slot} died {deaths} times in a row, no row committed; last: {kill.why}")

    def _spawn_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._group is not None
        return self._group.create_task(work)


def _slot(name: str) -> str:
    return name.rpartition(".")[0]


def _has_pace(name: str) -> bool:
    return not name.startswith(SINK)
