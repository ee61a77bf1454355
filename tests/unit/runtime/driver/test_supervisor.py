"""The supervisor over an engine whose members do nothing but answer the census."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from peerloom.errors import EngineError
from peerloom.events import MemberJoined, MemberLost, Notice, ViewChanged
from peerloom.protocol.messages import CommittedQuery, CommittedReply, Drain, Prepare, Report, decode, encode
from peerloom.protocol.view import PEER, Member
from peerloom.runtime.driver import supervisor as module
from peerloom.runtime.driver.supervisor import Event, Supervisor
from peerloom.runtime.member.spec import MemberSpec
from peerloom.runtime.program import Program
from peerloom.runtime.settings import RunSettings
from peerloom.runtime.transport.base import NoRoom, Unreachable
from peerloom.workflow import Sequence

SETTINGS = RunSettings(peers=2, heartbeat_seconds=60)
ROLES = ("only",)

Start = Callable[[Callable[[str], None]], Any]


class FakeEngine:
    """`starts` are what becomes of a slot's incarnations, in turn; then, and otherwise, they come up."""

    def __init__(self) -> None:
        self.starts: dict[str, list[Start]] = {}
        self.told: dict[str, asyncio.Queue[bytes]] = {}
        self.ends: dict[str, asyncio.Future[bytes]] = {}
        self.drained: list[str] = []
        self.late = False  # whether members report a view only when they stop
        self.unsent: dict[str, bytes] = {}
        self.all_late = asyncio.Event()

    async def spawn(self, spec: MemberSpec, on_wait: Callable[[str], None]) -> tuple[str, int]:
        name = spec.member.name
        script = self.starts.get(name.rpartition(".")[0])
        if script:
            await script.pop(0)(on_wait)
        self.told[name] = asyncio.Queue()
        self.ends[name] = asyncio.get_running_loop().create_future()
        return "node", 1

    def names(self) -> list[str]:
        return list(self.told)

    async def introduce(self, name: str) -> None: ...

    async def notify(self, name: str, data: bytes) -> None:
        message = decode(data)
        if isinstance(message, Prepare):
            report = encode(Report(message.view.number, name))
            if self.late:
                self.unsent[name] = report
                if set(self.unsent) == set(self.told):
                    self.all_late.set()
            else:
                self.told[name].put_nowait(report)
        elif isinstance(message, Drain):
            self.drained.append(name)
        elif isinstance(message, CommittedQuery):
            self.told[name].put_nowait(encode(CommittedReply(message.view, name, [], [])))

    async def poll_events(self, name: str, received: int) -> list[bytes]:
        if not self.told[name].empty():
            return [self.told[name].get_nowait()]
        event = asyncio.create_task(self.told[name].get())
        await asyncio.wait((event, self.ends[name]), return_when="FIRST_COMPLETED")
        if not event.done():
            event.cancel()
            self.ends[name].result()
            return []
        return [await event]

    async def ping(self, name: str) -> None: ...

    async def stop(self, name: str) -> None:
        if name in self.unsent:
            self.told[name].put_nowait(self.unsent[name])
        self.ends[name].set_result(b"")

    def kill(self, name: str) -> None:
        self.told.pop(name, None)

    def die(self, name: str) -> None:
        self.ends[name].set_exception(Unreachable(f"{name} has died"))


class Watch:
    """Everything the supervisor says, and a way to wait for some of it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._news = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def running(engine: FakeEngine, watch: Watch) -> AsyncIterator[Supervisor]:
    def spec(member: Member) -> MemberSpec:
        program = Program(Sequence(*ROLES), {})
        return MemberSpec(member, program, SETTINGS, Path("nowhere"), MappingProxyType({}))

    supervisor = Supervisor(engine, SETTINGS, ROLES, spec, watch, lambda: None, lambda name, report: None)  # type: ignore[arg-type]

    class Over(Exception):
        """Ends the group."""

    try:
        async with asyncio.TaskGroup() as group:
            supervisor.start(group)
            yield supervisor
            raise Over
    except* Over:
        pass


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAIT_SECONDS", 0.0)


def fails(error: Exception) -> Start:
    async def start(_: Callable[[str], None]) -> None:
        raise error

    return start


async def test_a_member_without_room_waits_while_the_others_go_on():
    engine, watch, room = FakeEngine(), Watch(), asyncio.Event()

    async def without_room(on_wait: Callable[[str], None]) -> None:
        for _ in range(5):
            on_wait("no node has spot=1")
        await room.wait()

    async with running(engine, watch) as supervisor:
        await watch.until(lambda: bool(watch.of(ViewChanged)))
        engine.starts["peer-1"] = [without_room]
        engine.die("peer-1.1")
        await watch.until(lambda: bool(watch.of(Notice)))
        assert "peer-1.1" not in supervisor.names
        assert "peer-0.1" in supervisor.names
        room.set()
        await watch.until(lambda: "peer-1.2" in supervisor.names and len(watch.of(ViewChanged)) >= 2)
    before, after = watch.of(Notice)
    assert "peer-1 cannot start yet" in before.text and "no node has spot=1" in before.text
    assert "peer-1 has room" in after.text
    assert [lost.member for lost in watch.of(MemberLost)] == ["peer-1.1"]


async def test_a_full_disk_at_the_start_is_no_death_in_a_row():
    engine, watch = FakeEngine(), Watch()
    async with running(engine, watch) as supervisor:
        await watch.until(lambda: bool(watch.of(ViewChanged)))
        engine.starts["sink-0"] = [fails(NoRoom("no room left"))] * (2 * module.MAX_CONSECUTIVE_DEATHS)
        engine.die("sink-0.1")
        await watch.until(lambda: len(watch.of(ViewChanged)) == 2)
        assert "sink-0.22" in supervisor.names
    assert len(watch.of(Notice)) == 2
    assert [lost.member for lost in watch.of(MemberLost)] == ["sink-0.1"]


async def test_who_dies_again_and_again_ends_the_run():
    engine, watch = FakeEngine(), Watch()
    engine.starts["peer-0"] = [fails(Unreachable("it died"))] * module.MAX_CONSECUTIVE_DEATHS
    with pytest.raises(ExceptionGroup) as caught:
        async with running(engine, watch):
            await watch.until(lambda: False)
    [error] = [error for error in caught.value.exceptions if isinstance(error, EngineError)]
    assert "peer-0 died 10 times in a row" in str(error)
    assert len(watch.of(MemberLost)) == module.MAX_CONSECUTIVE_DEATHS


async def test_progress_forgives_deaths():
    engine, watch = FakeEngine(), Watch()
    async with running(engine, watch) as supervisor:
        for incarnation in range(1, 2 * module.MAX_CONSECUTIVE_DEATHS):
            await watch.until(lambda number=incarnation: len(watch.of(ViewChanged)) == number)
            engine.die(f"peer-0.{incarnation}")
            supervisor.rows_committed()
    assert {joined.member for joined in watch.of(MemberJoined)} > {f"{PEER}-0.1", f"{PEER}-1.1"}


async def test_a_drain_before_the_first_view_reaches_the_feeder():
    engine, watch, room = FakeEngine(), Watch(), asyncio.Event()

    async def late(_: Callable[[str], None]) -> None:
        await room.wait()

    engine.starts["peer-0"] = [late]
    async with running(engine, watch) as supervisor:
        await watch.until(lambda: {"feeder-0.1", "sink-0.1"} <= {it.member for it in watch.of(MemberJoined)})
        supervisor.drain()
        room.set()
        await watch.until(lambda: bool(watch.of(ViewChanged)))
    assert engine.drained == ["feeder-0.1"]


async def test_deaths_by_poison_are_forgiven_to_the_quarantine_only():
    engine, watch = FakeEngine(), Watch()
    with pytest.raises(ExceptionGroup):
        async with running(engine, watch) as supervisor:
            for incarnation in range(1, 2 * module.MAX_CONSECUTIVE_DEATHS):
                await watch.until(lambda number=incarnation: len(watch.of(ViewChanged)) == number)
                engine.die(f"peer-0.{incarnation}")
                supervisor.poison_committed()
    assert len(watch.of(MemberLost)) == module.MAX_CONSECUTIVE_DEATHS


async def test_the_last_events_of_stopping_members_start_nothing():
    engine, watch = FakeEngine(), Watch()
    async with running(engine, watch) as supervisor:
        await watch.until(lambda: bool(watch.of(ViewChanged)))
        engine.late = True
        engine.die("peer-1.1")
        async with asyncio.timeout(5):
            await engine.all_late.wait()
    await supervisor.stop()
    assert not any(pending.qsize() for pending in engine.told.values())
    assert len(watch.of(ViewChanged)) == 1
