"""A service that goes away makes the run stand still and fails no task; it goes on when that is back."""

import asyncio
import time
from pathlib import Path

import pytest
from programs import Talker, talk
from raw_model import denying
from steering import Watch, going

import peerloom
from peerloom.errors import ServiceError
from peerloom.runtime.driver import health
from peerloom.runtime.driver import stats as gathering
from peerloom.runtime.program import Program
from peerloom.services.llm.hosted.providers import OpenAIService
from peerloom.services.llm.simulated.behavior import SimulatedBehavior
from peerloom.services.llm.simulated.server.app import ServerConfig, serving
from peerloom.services.llm.usage.budget import Budget
from peerloom.sink.read import read_rows
from peerloom.testing import execute
from peerloom.workflow import Sequence

ROWS = [{"n": number} for number in range(12)]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "OUTAGE_SECONDS", 0.2)


def calls(turns: int) -> Program:
    roles = [f"turn{index}" for index in range(turns)]
    return Program(Sequence(*roles), {role: Talker() for role in roles})


def away(snapshot: peerloom.Progress) -> bool:
    return snapshot.paused.startswith("llm does not answer (")


@pytest.mark.slow
async def test_a_dead_service_pauses_the_run_instead_of_failing_its_tasks(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, rows = Watch(), [{"n": number} for number in range(300)]
    behavior = SimulatedBehavior(latency=0.005)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        async with serving(ServerConfig(behavior=behavior, port=0)) as port:
            llm = OpenAIService(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
            run = execute(
                talk(), rows, llm, tmp_path / "run", engine=engine, in_flight=12, hooks=[watch], peers=2
            )
            running = group.create_task(run)
            await watch.until(lambda snapshot: bool(snapshot.outcomes))
        await watch.until(away)
        for _ in range(3):  # the last statistics of the members arrive
            await watch.next()
        monkeypatch.setattr(gathering, "CENSUS_SECONDS", 0.0)  # nobody looks for tasks that only wait
        still, views = watch.latest, len(watch.views)
        for _ in range(3):
            await watch.next()
        assert (watch.latest.outcomes, watch.latest.in_flight) == (still.outcomes, 12)
        assert len(watch.views) == views and watch.lost == []
        monkeypatch.undo()
        async with serving(ServerConfig(behavior=behavior, port=port)):
            done = await running
    assert done.summary["outcomes"] == {"completed": 300}
    assert len({row["id"] for row in done.rows}) == len(done.rows) == 300
    told = [text for text in watch.notices if "answer" in text]
    assert told[0].startswith("llm does not answer, its tasks wait for it and none fails: ")
    assert told[1:] == ["llm answers again"]


async def test_a_run_that_waits_for_its_service_can_be_steered(engine: str, tmp_path: Path) -> None:
    async with going(calls(2), ROWS, tmp_path / "run", engine=engine, in_flight=4) as run:
        await run.model.until_waiting(4)
        await run.model.leave()
        await run.watch.until(away)
        await run.watch.until(lambda snapshot: snapshot.turns == 0)
        status = await run.ask("status")
        assert (status["state"], status["in_flight"], status["turns"]) == ("running", 4, 0)
        assert status["why"].startswith("llm does not answer (")
        assert (await run.ask("pause"))["state"] == "paused"
        assert (await run.ask("continue"))["state"] == "running"
        assert (await run.ask("pause"))["state"] == "paused"
        await run.model.listen()
        await run.model.until_waiting(4)
        run.model.release()
        await run.watch.until(lambda snapshot: snapshot.paused.startswith("requested") and not snapshot.turns)
        assert run.model.calls == 8, "each of the four was asked again, and nothing new"
        assert (await run.ask("continue"))["state"] == "running"
        run.model.open()
        assert (await run.ending)["outcomes"] == {"completed": 12}


async def test_a_run_that_waits_for_its_service_is_stopped_at_once(engine: str, tmp_path: Path) -> None:
    async with going(calls(2), ROWS, tmp_path / "run", engine=engine, in_flight=4) as run:
        await run.model.until_waiting(4)
        await run.model.leave()
        await run.watch.until(away)
        await run.ask("drain")  # as the first Ctrl-C; the tasks in flight wait on
        await run.watch.next()
        assert not run.ending.done()
        began = time.monotonic()
        await run.ask("cancel")  # as the second
        await run.ending
        assert time.monotonic() - began < 5
        assert run.rows() == []
        await run.model.listen()


async def test_no_request_outlives_a_run_that_is_stopped(engine: str, tmp_path: Path) -> None:
    async with going(calls(2), ROWS, tmp_path / "run", engine=engine, in_flight=4) as run:
        await run.model.until_waiting(4)
        await run.ask("cancel")
        await run.ending
        async with asyncio.timeout(2):
            while run.model.connections:  # noqa: ASYNC110 - they break off, and nobody tells
                await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_a_budget_of_time_ends_a_run_that_waits_for_its_service(tmp_path: Path) -> None:
    budget = Budget(minutes=2 / 60)
    async with going(calls(2), ROWS, tmp_path / "run", engine="local", in_flight=4, budget=budget) as run:
        await run.model.until_waiting(4)
        await run.model.leave()
        await run.watch.until(away)
        async with asyncio.timeout(10):
            summary = await run.ending
        assert summary["suspended"] == 4
        await run.model.listen()


def test_a_service_that_refuses_the_run_from_the_start_ends_it(tmp_path: Path) -> None:
    program, run_dir = calls(2), tmp_path / "run"
    with denying(after=0) as model:
        words = r"llm: HTTP 401: no such key; .* Nothing was answered yet; fix it, then: peerloom resume "
        with pytest.raises(ServiceError, match=words + str(run_dir)):
            peerloom.run(
                workflow=program.workflow,
                agents=program.agents,
                source=ROWS,
                llm=OpenAIService(base_url=model.url, api_key="sk-wrong"),
                engine="local",
                run_dir=run_dir,
            )
        assert list(read_rows(run_dir)) == []
        model.denies = False
        done = peerloom.run(
            workflow=program.workflow,
            agents=program.agents,
            source=ROWS,
            llm=OpenAIService(base_url=model.url, api_key="sk-right"),
            engine="local",
            run_dir=run_dir,
        )
    assert done.summary["outcomes"] == {"completed": 12}


async def test_a_denial_later_on_is_waited_for(tmp_path: Path) -> None:
    watch = Watch()
    with denying(after=9) as model:
        llm = OpenAIService(base_url=model.url, api_key="sk-emptied")
        run = execute(calls(2), ROWS, llm, tmp_path / "run", in_flight=4, hooks=[watch], peers=2)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            running = group.create_task(run)
            await watch.until(away)
            model.denies = False
        done = running.result()
    assert done.summary["outcomes"] == {"completed": 12}
    told = [text for text in watch.notices if "answer" in text]
    assert len(told) == 2 and "no such key" in told[0]
    assert told[1] == "llm answers again"
