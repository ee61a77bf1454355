"""Supervise the members: carry out the effects of the coordinator, and detect deaths.

A member is lost when its process ends, when it misses a heartbeat (being stopped, for example), or when
another member suspects it. Two tasks watch each member: one reads its events until it ends, the other checks
its heartbeat. A member that the cluster or the disk has no room for waits to start, which is not a death; the
others continue.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from peerloom.errors import EngineError
from peerloom.events import MemberJoined, MemberLost, Notice, ViewChanged
from peerloom.protocol.coordinator import Coordinator, Kill, Send, Spawn
from peerloom.protocol.messages import (
    Drain,
    EndpointUpdate,
    HealthReport,
    Message,
    Pace,
    QuotaGrants,
    UsageReports,
    encode,
)
from peerloom.protocol.view import ALONE, FEEDER, SINK, Member
from peerloom.runtime.engine import Engine
from peerloom.runtime.member.events import LeaseControls, MemberNotice, MemberStats, decode_event
from peerloom.runtime.member.spec import MemberSpec
from peerloom.runtime.settings import RunSettings, members
from peerloom.runtime.transport.base import NoRoom, Unreachable
from peerloom.runtime.transport.deadline import Deadline

MAX_CONSECUTIVE_DEATHS = 10
MAX_WAIT_SECONDS = 5.0  # before a slot that keeps dying, or finds no room, is filled again
STOP_SECONDS = 10.0
DELIVERY_SECONDS = 5.0

Event = MemberJoined | MemberLost | ViewChanged | Notice
MemberReport = LeaseControls | MemberStats | MemberNotice | UsageReports | HealthReport


class Supervisor:
    """Supervises the members of one session.

    `on_event` gets the changes of membership, and notices; `on_report` the name of a member and each of its
    events that is not for the coordinator. `on_finished` is called when every task is committed. `first` is
    the number of the first view and of the members' first incarnations.
    """

    def __init__(
        self,
        engine: Engine,
        settings: RunSettings,
        roles: tuple[str, ...],
        make_spec: Callable[[Member], MemberSpec],
        on_event: Callable[[Event], None],
        on_finished: Callable[[], None],
        on_report: Callable[[str, MemberReport], None],
        *,
        first: int = 1,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._make_spec = make_spec
        self._on_event = on_event
        self._coordinator = Coordinator(
            members(settings, roles, first),
            settings.partitions,
            settings.shards,
            journal=settings.journal,
            last_view=first - 1,
        )
        self._on_finished = on_finished
        self._on_report = on_report
        self._draining = False
        self._pace = Pace(0, settings.in_flight, False)
        self._notifications: set[asyncio.Task[None]] = set()
        self._ending = False
        self._consecutive_deaths: dict[str, int] = {}
        self._waiting_slots: set[str] = set()
        self._announced_view = 0
        self._received: Counter[str] = Counter()  # the number of events of each member
        self._group: asyncio.TaskGroup | None = None

    @property
    def names(self) -> list[str]:
        """The names of the members in the present view."""
        return [member.name for member in self._coordinator.view.members]

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start the members, and watch them in `group`.

        The group fails with an `EngineError` if a member dies repeatedly.
        """
        self._group = group
        self._coordinator.start()
        self._advance()

    def drain(self) -> None:
        """Stop admission; the run finishes when the tasks in flight are committed."""
        self._draining = True
        if self._ending:
            return
        for name in self._engine.names() if self._group is not None else ():
            if name.startswith(FEEDER):
                self._notify(name, Drain())

    def set_pace(self, settings: RunSettings, *, paused: bool) -> None:
        """Adopt changed settings; while `paused`, no task is admitted and no turn begins."""
        self._settings = settings
        if self._ending or (settings.in_flight, paused) == (self._pace.in_flight, self._pace.paused):
            return
        self._pace = Pace(self._pace.number + 1, settings.in_flight, paused)
        for name in self._engine.names() if self._group is not None else ():
            if _has_pace(name):
                self._notify(name, self._pace)

    def send(self, name: str, message: QuotaGrants | EndpointUpdate) -> None:
        """Send a member a message about its services, unless it is gone."""
        if not self._ending and self._group is not None and name in self._engine.names():
            self._spawn_task(self._send(name, message))

    async def wait_delivered(self) -> None:
        """Wait until the members have received all notifications, or a timeout has passed."""
        if self._notifications:
            await asyncio.wait(self._notifications, timeout=DELIVERY_SECONDS)

    def census(self) -> None:
        """Start a census, for tasks that may have been lost without a death."""
        self._coordinator.census()
        self._advance()

    def rows_committed(self) -> None:
        """Reset the counts of consecutive deaths, since rows were committed."""
        self._consecutive_deaths.clear()

    def poison_committed(self) -> None:
        """Reset the counts of quarantine peers, since the rows of poison tasks were committed."""
        for slot in [slot for slot in self._consecutive_deaths if slot.startswith(ALONE)]:
            del self._consecutive_deaths[slot]

    async def stop(self) -> None:
        """Stop all members, sinks last, after the tasks of `start` have ended, and read their last events."""
        self._ending = True
        members = self._coordinator.view.members
        for sinks in (False, True):
            async with asyncio.TaskGroup() as group:
                for member in members:
                    if (member.kind == SINK) is sinks:
                        group.create_task(self._stop(member.name))

    async def _stop(self, name: str) -> None:
        with contextlib.suppress(Unreachable, EngineError, TimeoutError):
            async with Deadline(STOP_SECONDS):
                await self._engine.stop(name)
                await self._read_events(name)

    def _advance(self) -> None:
        if self._ending:  # the last events of the members are read for their reports alone
            return
        for effect in self._coordinator.effects():
            match effect:
                case Send():
                    self._spawn_task(self._send(effect.to, effect.message))
                case Kill():
                    self._remove_dead(effect)
                case Spawn():
                    self._spawn_task(self._start(effect.member))
        view = self._coordinator.view
        if self._coordinator.settled and view.number > self._announced_view:
            self._announced_view = view.number
            self._on_event(ViewChanged(view.number, tuple(sorted(view.names))))
        if self._coordinator.finished:
            self._on_finished()

    async def _start(self, member: Member) -> None:
        slot = _slot(member.name)
        await asyncio.sleep(self._delay(slot))
        try:
            node, pid = await self._engine.spawn(
                self._make_spec(member), lambda why: self._start_wait(member, why)
            )
        except NoRoom as error:
            self._start_wait(member, str(error))
            self._on_lost(member.name, str(error))
            return
        except Unreachable as error:
            self._waiting_slots.discard(slot)
            self._on_lost(member.name, str(error))
            return
        self._end_wait(slot)
        self._spawn_task(self._follow(member.name))
        self._spawn_task(self._watch_heartbeat(member.name))
        async with asyncio.TaskGroup() as group:
            for name in self._engine.names():
                group.create_task(self._introduce(name))
        self._on_event(MemberJoined(member.name, node, pid))
        if self._pace.number and _has_pace(member.name):
            await self._send(member.name, self._pace)  # before it takes part
        if self._draining and member.kind == FEEDER:
            self._notify(member.name, Drain())
        self._coordinator.joined(member.name)
        self._advance()

    def _delay(self, slot: str) -> float:
        deaths = self._consecutive_deaths.get(slot, 0)
        if slot in self._waiting_slots:
            return MAX_WAIT_SECONDS
        return min(MAX_WAIT_SECONDS, 0.1 * 2**deaths) if deaths else 0

    def _start_wait(self, member: Member, why: str) -> None:
        slot = _slot(member.name)
        self._coordinator.no_room(member.name)
        self._advance()
        if slot not in self._waiting_slots:
            self._waiting_slots.add(slot)
            self._on_event(Notice("warning", f"{slot} cannot start yet, the others go on without it: {why}"))

    def _end_wait(self, slot: str) -> None:
        if slot in self._waiting_slots:
            self._waiting_slots.remove(slot)
            self._on_event(Notice("info", f"{slot} has room now, and takes part"))

    async def _introduce(self, name: str) -> None:
        try:
            async with Deadline(self._settings.deliver_seconds):
                await self._engine.introduce(name)
        except (Unreachable, TimeoutError) as error:
            self._on_lost(name, f"did not hear of the others: {error}")

    def _notify(self, name: str, message: Message) -> None:
        notification = self._spawn_task(self._send(name, message))
        self._notifications.add(notification)
        notification.add_done_callback(self._notifications.discard)

    async def _send(self, name: str, message: Message) -> None:
        try:
            async with Deadline(self._settings.deliver_seconds):
                await self._engine.notify(name, encode(message))
        except Unreachable as error:
            self._on_lost(name, str(error))
        except TimeoutError:
            self._on_lost(name, f"took no message in for {self._settings.deliver_seconds:g} s")

    async def _follow(self, name: str) -> None:
        try:
            await self._read_events(name)
        except Unreachable as error:
            self._on_lost(name, str(error))

    async def _read_events(self, name: str) -> None:
        """Handle the events of a member until it has stopped."""
        while events := await self._engine.poll_events(name, self._received[name]):
            self._received[name] += len(events)
            for data in events:
                event = decode_event(data)
                if isinstance(event, MemberReport):
                    self._on_report(name, event)
                else:
                    self._coordinator.receive(event)
                    self._advance()

    async def _watch_heartbeat(self, name: str) -> None:
        while True:
            await asyncio.sleep(self._settings.heartbeat_seconds)
            try:
                async with Deadline(self._settings.suspect_seconds):
                    await self._engine.ping(name)
            except TimeoutError:
                self._on_lost(name, f"no sign of life for {self._settings.suspect_seconds:g} s")
                return
            except Unreachable:
                return

    def _on_lost(self, name: str, why: str) -> None:
        if not self._ending:
            self._coordinator.lost(name, why)
            self._advance()

    def _remove_dead(self, kill: Kill) -> None:
        self._engine.kill(kill.name)
        slot = _slot(kill.name)
        if slot in self._waiting_slots:
            return
        self._on_event(MemberLost(kill.name, kill.why))
        deaths = self._consecutive_deaths[slot] = self._consecutive_deaths.get(slot, 0) + 1
        if deaths >= MAX_CONSECUTIVE_DEATHS:
            raise EngineError(f"{slot} died {deaths} times in a row, no row committed; last: {kill.why}")

    def _spawn_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._group is not None
        return self._group.create_task(work)


def _slot(name: str) -> str:
    return name.rpartition(".")[0]


def _has_pace(name: str) -> bool:
    return not name.startswith(SINK)
