"""Fleets whose endpoints come and go while a run lasts: no task fails, on either engine."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from programs import talk

from peerloom.agents.base import Services
from peerloom.errors import ModelError, ServiceError
from peerloom.events import Hooks, Notice, Progress
from peerloom.runtime.program import Program
from peerloom.services.fleets import service
from peerloom.services.fleets.directory import Entry, Listed, write
from peerloom.services.fleets.service import FleetService
from peerloom.services.llm.base import ChatRequest
from peerloom.services.llm.llamacpp import weights as models
from peerloom.services.llm.llamacpp.service import LlamaCppService
from peerloom.services.llm.simulated.behavior import SimulatedBehavior
from peerloom.services.llm.simulated.server.app import ServerConfig, serving
from peerloom.task import Task, Turn
from peerloom.testing import execute
from peerloom.workflow import Sequence

ROWS = [{"n": number} for number in range(40)]
SLOW = SimulatedBehavior(latency=0.15)


class Chooser:
    """Asks for one of two letters, which costs a small model little; does something at its tenth turn."""

    def __init__(self, at_ten: Callable[[], None]) -> None:
        self.at_ten = at_ten
        self.turns = 0

    async def act(self, task: Task, services: Services) -> Turn:
        self.turns += 1
        if self.turns == 10:
            self.at_ten()
        messages = [{"role": "user", "content": f"Topic {task.input['n']}: A or B?"}]
        request = ChatRequest(messages=messages, choices=("A", "B"), max_tokens=4, session=str(task.id))
        return Turn("", value=(await services.llm.chat(request)).text)


class Once(Hooks):
    """Does something as soon as a few rows are there; keeps the notices."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act
        self.done = False
        self.notices: list[str] = []
        self.away = asyncio.Event()

    def progress(self, event: Progress) -> None:
        if sum(event.outcomes.values()) >= 4 and not self.done:
            self.done = True
            self.act()

    def notice(self, event: Notice) -> None:
        self.notices.append(event.text)
        if "its calls wait for one" in event.text:
            self.away.set()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "POLL_SECONDS", 0.05)


def listed(*ports: int) -> tuple[Listed, ...]:
    return tuple(Listed(url=f"http://127.0.0.1:{port}/v1") for port in ports)


@pytest.mark.slow
async def test_endpoints_move_while_a_run_lasts(engine: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    move = asyncio.Event()
    hooks = Once(move.set)

    async def served() -> int:
        """Server A until the move, then B; the calls that B answered are in its log."""
        async with serving(ServerConfig(behavior=SLOW, port=0, log=tmp_path / "b.jsonl")) as b:
            async with serving(ServerConfig(behavior=SLOW, port=0)) as a:
                write(file, Entry(model="simulated", endpoints=listed(a)))
                running = asyncio.create_task(
                    execute(
                        talk(),
                        ROWS,
                        FleetService(str(file)),
                        tmp_path / "run",
                        engine=engine,
                        in_flight=8,
                        hooks=[hooks],
                    )
                )
                await asyncio.wait(
                    (running, asyncio.ensure_future(move.wait())), return_when=asyncio.FIRST_COMPLETED
                )
                write(file, Entry(model="simulated", endpoints=listed(b)))
            done = await running  # A is gone, and whatever it had not answered
            assert done.summary["outcomes"] == {"completed": len(ROWS)}
            assert b != a
        return (tmp_path / "b.jsonl").read_bytes().count(b"\n")

    assert await served() > len(ROWS)
    assert any(notice.startswith("fleet mine has 1 endpoints up") for notice in hooks.notices)


@pytest.mark.slow
async def test_a_fleet_that_is_away_makes_the_run_stand_still(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    hooks = Once(file.unlink)
    async with serving(ServerConfig(behavior=SLOW, port=0)) as port:
        entry = Entry(model="simulated", endpoints=listed(port))
        write(file, entry)
        run = execute(talk(), ROWS, FleetService(str(file)), tmp_path / "run", in_flight=8, hooks=[hooks])
        running = asyncio.create_task(run)
        await hooks.away.wait()
        write(file, entry)
        done = await running
    assert done.summary["outcomes"] == {"completed": len(ROWS)}


async def test_a_fleet_that_serves_another_model_ends_the_run(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    async with serving(ServerConfig(behavior=SLOW, port=0)) as port:
        write(file, Entry(model="simulated", endpoints=listed(port)))
        hooks = Once(lambda: write(file, Entry(model="other", endpoints=listed(port))))
        with pytest.raises(ServiceError, match="now serves other, but this run began with simulated"):
            await execute(talk(), ROWS, FleetService(str(file)), tmp_path / "run", in_flight=8, hooks=[hooks])


def llamacpp_servers() -> set[int]:
    """The process ids of this process's servers, other tests' included."""
    servers: set[int] = set()
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it has just ended
            if "peerloom.services.llm.llamacpp.server" in child.cmdline():
                servers.add(child.pid)
    return servers


@pytest.mark.slow
async def test_a_killed_replica_of_llamacpp_fails_no_row(tmp_path: Path) -> None:
    try:
        models.pull("smollm2-135m")
    except ModelError as error:
        pytest.skip(f"needs the model: {error}")
    others, killed = llamacpp_servers(), list[int]()

    def kill() -> None:
        killed.append(min(llamacpp_servers() - others))
        os.kill(killed[0], signal.SIGKILL)

    hooks = Once(lambda: None)
    choose = Program(Sequence("first", "second"), {"first": Chooser(kill), "second": Chooser(lambda: None)})
    llm = LlamaCppService(replicas=2, slots=2, context=256)
    done = await execute(choose, ROWS, llm, tmp_path / "run", in_flight=4, hooks=[hooks])
    assert killed
    assert done.summary["outcomes"] == {"completed": 40}
    assert any("was killed by signal 9" in notice for notice in hooks.notices)
