"""What goes wrong outside becomes a located message or a recorded outcome; finished rows are kept."""

import asyncio
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import LosesItsFile, awkward, forgetful, slow, talk
from steering import going

from peerloom.errors import EngineError, ServiceError, SourceError, WorkflowError
from peerloom.events import Hooks, Notice
from peerloom.runtime.program import Program
from peerloom.services.llm.hosted.providers import OpenAIService
from peerloom.services.llm.retry import Retry
from peerloom.services.llm.simulated.service import SimulatedService
from peerloom.sink.read import read_rows
from peerloom.source.open import open_source
from peerloom.testing import execute

ROWS = [{"n": number} for number in range(12)]
TWICE = Retry(attempts=2, base=0.01, cap=0.01, retry_after_cap=0.01)


async def test_bad_lines_are_rows_of_their_own(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    lines = [
        b'{"n": 0}',
        b"{not json",
        b'{"m": 1}',
        b'{"n": "\xff"}',
        b'{"n": 4, "pad": "%s"}' % (b"x" * 5_000_000),
    ]
    path.write_bytes(b"\n".join(lines))
    done = await execute(talk(), open_source(str(path)), SimulatedService(), tmp_path / "run", engine=engine)
    assert done.summary["outcomes"] == {"completed": 2, "failed": 3}
    assert done.summary["reasons"] == {"bad_row": 3}
    details = [row["detail"] for row in done.rows if row["outcome"] == "failed"]
    assert "q.jsonl:2" in details[0]
    assert details[1] == "field 'n' is missing"
    assert "q.jsonl:4" in details[2] and "UTF-8" in details[2]
    assert len(done.rows[4]["input"]["pad"]) == 5_000_000


async def test_what_cannot_travel_fails_its_own_task_only(
    engine: str, placement: str, tmp_path: Path
) -> None:
    done = await execute(
        awkward(),
        [{"n": number} for number in range(10)],
        SimulatedService(),
        tmp_path / "run",
        engine=engine,
        placement=placement,
    )
    failed = {row["input"]["n"]: row["detail"] for row in done.rows if row["outcome"] == "failed"}
    assert set(failed) == {1, 2, 3, 6, 7, 8}
    assert "CancelledError" in failed[1]
    assert "an integer of more than 64 bits" in failed[6]
    assert done.rows[4]["result"] == [1, 2]
    assert set(done.summary["reasons"]) == {"agent_error"}


@pytest.mark.parametrize("engine", ["local"], indirect=True)  # the feeder is the same
async def test_a_check_that_raises_anything_is_a_bad_row(engine: str, tmp_path: Path) -> None:
    program = Program(talk().workflow, talk().agents, forgetful)
    done = await execute(program, ROWS, SimulatedService(), tmp_path / "run", engine=engine)
    assert done.summary["reasons"] == {"bad_row": 1}
    assert done.rows[3]["detail"].startswith("KeyError: 'a check that fails by itself' (programs.py:")


async def test_an_input_that_goes_away_ends_the_run_and_says_so(engine: str, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"q\.jsonl was there"):
        await execute(talk(), LosesItsFile(ROWS), SimulatedService(), tmp_path / "run", engine=engine)


@pytest.mark.parametrize("engine", ["local"], indirect=True)  # decided before a member starts
async def test_no_rows_is_refused_before_anything_starts(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_bytes(b"\n\n")
    with pytest.raises(SourceError, match=r"no rows.*empty\.jsonl"):
        await execute(talk(), open_source(str(path)), SimulatedService(), tmp_path / "run", engine=engine)


@pytest.mark.parametrize("engine", ["local"], indirect=True)  # decided before a member starts
async def test_a_role_without_agent_is_refused(engine: str, tmp_path: Path) -> None:
    program = talk()
    agents = {name: agent for name, agent in program.agents.items() if name != "answer"}
    with pytest.raises(WorkflowError, match=r"'answer'.*no agent"):
        await execute(
            Program(program.workflow, agents), ROWS, SimulatedService(), tmp_path / "run", engine=engine
        )


FAILING = {
    "garbage": (SimulatedService(rate_garbage=1.0, retry=TWICE), "failed", "llm_unavailable"),
    "5xx": (SimulatedService(rate_5xx=1.0, retry=TWICE), "failed", "llm_unavailable"),
    "hang": (SimulatedService(rate_hang=1.0, timeout=0.01, retry=TWICE), "failed", "llm_unavailable"),
    "context": (SimulatedService(context=1), "truncated", "context_exceeded"),
}


@pytest.mark.parametrize(
    ("engine", "fault"),
    [*(("local", fault) for fault in FAILING), pytest.param("ray", "5xx", marks=pytest.mark.slow)],
    indirect=["engine"],
)
async def test_a_model_that_fails_is_an_outcome(fault: str, engine: str, tmp_path: Path) -> None:
    llm, outcome, reason = FAILING[fault]
    done = await execute(talk(), ROWS, llm, tmp_path / "run", engine=engine)
    assert done.summary["outcomes"] == {outcome: 12}
    assert done.summary["reasons"] == {reason: 12}
    assert all(row["detail"] for row in done.rows)


@pytest.mark.parametrize("engine", ["local"], indirect=True)  # decided before a member starts
async def test_an_unreachable_server_stops_the_run_at_its_start(engine: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(ServiceError, match=url):
            await execute(talk(), ROWS, OpenAIService(base_url=url), tmp_path / "run", engine=engine)
    assert not list(read_rows(tmp_path / "run"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


async def test_a_full_disk_is_waited_out(engine: str, small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 700_000)
    notices: list[str] = []

    class MakeRoom(Hooks):
        def notice(self, event: Notice) -> None:
            notices.append(event.text)
            if "Waiting for room" in event.text:
                ballast.unlink(missing_ok=True)

    rows = [{"n": number, "pad": "x" * 4_000} for number in range(100)]
    done = await execute(
        slow(0.0, hops=2), rows, SimulatedService(), small_disk / "run", engine=engine, hooks=[MakeRoom()]
    )
    assert any("Waiting for room" in text for text in notices)
    assert any("room on the disk again" in text for text in notices)
    assert done.summary["outcomes"] == {"completed": 100}
    assert len({row["id"] for row in done.rows}) == len(done.rows) == 100


async def test_a_drain_does_not_wait_for_room(engine: str, small_disk: Path) -> None:
    rows = [{"n": number, "pad": "x" * 4_000} for number in range(600)]
    async with going(slow(0.0, hops=2), rows, small_disk / "run", engine=engine, in_flight=50) as run:
        while not any("Waiting for room" in text for text in run.watch.notices):
            await run.watch.next()
        await run.ask("drain")
        async with asyncio.timeout(15):
            summary = await run.ending
        assert any("not waiting any longer for room on the disk" in text for text in run.watch.notices)
        assert 0 < summary["outcomes"]["completed"] == len(run.rows()) < 600
