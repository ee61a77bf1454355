"""Services besides the model, on both engines: calls, kills, refusals, cancelled calls, and the end."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from counters import Counters, Echo
from service_programs import (
    ROLES,
    AtOnce,
    Calling,
    Dying,
    Holding,
    Impatient,
    OneAfterTheOther,
    Refused,
    alone,
    counting,
    counting_in_two,
)

from peerloom.events import Hooks, Progress
from peerloom.services.base import Policy, Service
from peerloom.services.builtin.kv import KeyValue
from peerloom.services.llm.client.router import ServiceOptions, ServiceRouter
from peerloom.services.llm.limits.service_quota import Limits
from peerloom.services.llm.retry import Retry
from peerloom.services.llm.simulated.service import SimulatedService
from peerloom.services.processes import replica
from peerloom.testing import Finished, execute

KINDS: dict[str, Any] = {"kv": KeyValue, "counters": Counters}
ROWS = [{"n": number} for number in range(40)]


def processes() -> list[psutil.Process]:
    """The processes of services that were started here; those on nodes may be of another test's run."""
    found: list[psutil.Process] = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "peerloom.services.leased.host" in process.cmdline()[:4] and not _is_on_node(process):
                found.append(process)
    return found


def _is_on_node(process: psutil.Process) -> bool:
    return any(parent.name() == "raylet" for parent in process.parents())


class KillServices(Hooks):
    """Kills the processes of the services whenever some more rows are there."""

    def __init__(self, kills: int) -> None:
        self.left = kills
        self.rows = 0

    def progress(self, event: Progress) -> None:
        rows = sum(event.outcomes.values())
        if self.left and rows > self.rows:
            self.rows = rows
            for process in processes():
                with suppress(psutil.Error):
                    os.kill(process.pid, signal.SIGKILL)
            self.left -= 1


async def run(
    program: Any, kinds: dict[str, Service], tmp_path: Path, engine: str, rows: Any = ROWS, **settings: Any
) -> Finished:
    llm = SimulatedService(latency=settings.pop("latency", 0.0))
    done = await execute(program, rows, llm, tmp_path / "run", engine=engine, services=kinds, **settings)
    assert not processes(), "a process of a service outlives its run"
    return done


def values(done: Finished) -> set[tuple[Any, ...]]:
    return {tuple(value for turn in row["turns"] for value in turn["value"]) for row in done.rows}


@pytest.mark.parametrize("service", KINDS)
async def test_a_task_keeps_its_lease_from_turn_to_turn(
    service: str, engine: str, placement: str, tmp_path: Path
) -> None:
    kinds = {service: KINDS[service](leases=3).service()}
    done = await run(counting(service), kinds, tmp_path, engine, in_flight=20, placement=placement)
    assert done.summary["outcomes"] == {"completed": len(ROWS)}
    assert values(done) == {tuple(range(1, 2 * len(ROLES) + 1))}


@pytest.mark.slow
@pytest.mark.parametrize("service", KINDS)
async def test_a_killed_process_loses_no_step_and_repeats_none(
    service: str, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "SHORT_SECONDS", 0.0)  # else it is given up
    hooks = KillServices(5)
    kinds = {service: KINDS[service](leases=4, processes=2).service()}
    done = await run(counting(service), kinds, tmp_path, engine, in_flight=20, latency=0.05, hooks=[hooks])
    assert done.summary["outcomes"] == {"completed": len(ROWS)}
    assert values(done) == {tuple(range(1, 2 * len(ROLES) + 1))}
    assert hooks.left < 5


@pytest.mark.slow
async def test_leases_of_two_services_survive_kills_and_block_nobody(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "SHORT_SECONDS", 0.0)  # else it is given up
    kinds = {"kv": KeyValue(leases=2).service(), "counters": Counters(leases=4).service()}
    hooks = KillServices(3)
    done = await run(counting_in_two(), kinds, tmp_path, engine, in_flight=20, latency=0.02, hooks=[hooks])
    assert done.summary["outcomes"] == {"completed": len(ROWS)}
    assert values(done) == {(11, 1, 12, 2, 13, 3, 14, 4, 15, 5, 16, 6, 17, 7, 18, 8)}
    assert hooks.left < 3


@pytest.mark.slow
async def test_processes_on_the_nodes_of_the_cluster_are_used(ray_cluster: None, tmp_path: Path) -> None:
    kinds = {"kv": KeyValue(leases=4, processes=2, nodes=True).service()}
    done = await run(counting("kv"), kinds, tmp_path, "ray", in_flight=20)
    assert done.summary["outcomes"] == {"completed": len(ROWS)}
    assert values(done) == {tuple(range(1, 2 * len(ROLES) + 1))}
    assert {path.name for path in (tmp_path / "run" / "logs").glob("kv*")} == {"kv-1.log", "kv-2.log"}


async def test_tasks_that_need_two_leases_in_turn_share_one(engine: str, tmp_path: Path) -> None:
    rows = [{"n": number} for number in range(100)]
    kinds = {"kv": KeyValue(leases=1).service()}
    done = await run(alone(OneAfterTheOther()), kinds, tmp_path, engine, rows, in_flight=100)
    assert done.summary["outcomes"] == {"completed": 100}
    assert values(done) == {(2, 11)}


async def test_with_declared_leases_no_task_is_admitted_that_would_wait(engine: str, tmp_path: Path) -> None:
    in_flight: list[int] = []

    class Watch(Hooks):
        def progress(self, event: Progress) -> None:
            in_flight.append(event.in_flight)

    kinds = {"kv": KeyValue(leases=3, per_task=1).service()}
    done = await run(counting("kv"), kinds, tmp_path, engine, in_flight=20, latency=0.05, hooks=[Watch()])
    assert done.summary["outcomes"] == {"completed": len(ROWS)}
    assert 0 < max(in_flight) <= 3


async def test_a_refused_call_changes_nothing_and_a_failed_one_is_undone(engine: str, tmp_path: Path) -> None:
    kinds = {"counters": Counters(first=5).service()}
    done = await run(alone(Refused()), kinds, tmp_path, engine, ROWS[:2])
    [(value, odd, broken, many)] = values(done)
    assert value == 7
    assert "service 'counters': it counts no odd things" in odd
    assert "RuntimeError: the counter broke" in broken
    assert "each process has 100" in many


async def test_a_cancelled_call_is_undone(engine: str, tmp_path: Path) -> None:
    done = await run(alone(Impatient()), {"counters": Counters().service()}, tmp_path, engine, ROWS[:3])
    assert [row["turns"][0]["value"] for row in done.rows] == [2, 2, 2]


async def test_calls_at_the_same_time_share_one_lease(engine: str, tmp_path: Path) -> None:
    kinds = {"kv": KeyValue(leases=1).service()}
    done = await run(alone(AtOnce()), kinds, tmp_path, engine, ROWS[:5])
    assert values(done) == {(1, 2, 3, 4, 5)}


async def test_no_task_waits_for_leases_while_it_holds_others(engine: str, tmp_path: Path) -> None:
    kinds = {"kv": KeyValue().service(), "counters": Counters().service()}
    done = await run(alone(Holding()), kinds, tmp_path, engine, ROWS[:1])
    [row] = done.rows
    assert (row["outcome"], row["reason"]) == ("failed", "service_call")
    assert "acquire all at once, or release them first" in row["detail"]


async def test_a_service_that_the_run_lacks_fails_the_task(engine: str, tmp_path: Path) -> None:
    done = await run(counting("kv"), {}, tmp_path, engine, ROWS[:1])
    assert done.rows[0]["detail"] == "there is no service 'kv'; the run has: llm"


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "values", "replayed"), [("replay", [1, 1], [0]), ("rerun", [1, 2], None)])
async def test_recorded_calls_are_replayed_and_others_are_made_again(
    policy: Policy, values: list[int], replayed: list[int] | None, ray_cluster: None, tmp_path: Path
) -> None:
    rows = [{"n": 7, "died": str(tmp_path / "died")}]
    kinds = {"echo": Echo(policy=policy).service()}
    done = await run(alone(Dying("echo")), kinds, tmp_path, "ray", rows)
    [turn] = done.rows[0]["turns"]
    assert turn["value"] == [[{"n": 7}, number] for number in values]
    assert turn["execution"].get("replayed") == replayed
    assert turn["execution"]["member"].startswith("peer-")


@pytest.mark.slow
async def test_calls_of_the_model_are_recorded_as_those_of_any_service(
    ray_cluster: None, tmp_path: Path
) -> None:
    rows = [{"n": 7, "died": str(tmp_path / "died")}]
    done = await run(alone(Dying("llm")), {}, tmp_path, "ray", rows)
    [turn] = done.rows[0]["turns"]
    assert turn["execution"]["replayed"] == [0]
    assert turn["execution"]["tries"] == 1, "of the equal call after the death"
    assert turn["usage"]["calls"] == 2


@pytest.mark.parametrize("service", ["kv", "echo", "llm"])
async def test_the_calls_of_all_peers_share_the_limits(service: str, engine: str, tmp_path: Path) -> None:
    limits = Limits(requests_per_minute=1_200, window_seconds=0.5, adaptive=False)  # 10 in half a second
    kinds: dict[str, Any] = {"kv": KeyValue(limits=limits), "echo": Echo(limits=limits)}
    llm = ServiceRouter(
        {"llm": SimulatedService()},
        options={"llm": ServiceOptions(limits=limits)} if service == "llm" else {},
    )
    began = time.monotonic()
    done = await execute(
        alone(Calling(service)),
        ROWS,
        llm,
        tmp_path / "run",
        engine=engine,
        services={name: options.service() for name, options in kinds.items() if name == service},
        peers=2,
    )
    assert done.summary["outcomes"] == {"completed": len(ROWS)}
    assert time.monotonic() - began > 0.8, "40 calls at 20 a second"
    assert sum(turn["execution"].get("waited", 0) for row in done.rows for turn in row["turns"]) > 1


async def test_a_process_of_a_service_has_an_environment_of_its_own(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    seen: list[dict[str, str]] = []

    class Look(Hooks):
        def progress(self, event: Progress) -> None:
            seen.extend(process.environ() for process in processes())

    await run(counting("kv"), {"kv": KeyValue().service()}, tmp_path, engine, hooks=[Look()], latency=0.1)
    assert seen
    assert all("OPENAI_API_KEY" not in environment for environment in seen)


async def test_a_turn_tells_how_it_was_made(engine: str, tmp_path: Path) -> None:
    llm = SimulatedService(rate_5xx=0.5, retry=Retry(base=0.01))
    done = await execute(
        counting("kv"), ROWS[:10], llm, tmp_path / "run", engine=engine, services={"kv": KeyValue().service()}
    )
    made = [turn["execution"] for row in done.rows for turn in row["turns"]]
    assert {each["member"].partition("-")[0] for each in made} == {"peer"}
    assert min(each["tries"] for each in made) == 3, "a call of the model, and two of the store"
    retried = [each for each in made if each["tries"] > 5]
    assert retried
    assert all(each["waited"] > 0 for each in retried)
