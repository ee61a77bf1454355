import asyncio
import threading
from pathlib import Path

import pytest

from peerloom.agents.function import FunctionAgent
from peerloom.runtime.driver.session import Session
from peerloom.runtime.program import Program
from peerloom.runtime.threads import to_its_end
from peerloom.services.llm.scripted import ScriptedService
from peerloom.sink.rundir.directory import in_use
from peerloom.testing import execute
from peerloom.workflow import Sequence


async def test_what_the_thread_makes_comes_back() -> None:
    assert await to_its_end(sorted, [2, 1], reverse=True) == [2, 1]
    with pytest.raises(ValueError, match="invalid literal"):
        await to_its_end(int, "x")


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancellation_waits_for_the_end(fails: bool) -> None:
    began, goes_on, ended = asyncio.Event(), threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def work() -> None:
        loop.call_soon_threadsafe(began.set)
        goes_on.wait()
        ended.set()
        if fails:
            raise OSError

    task = asyncio.create_task(to_its_end(work))
    await began.wait()
    for _ in range(2):  # also when it is cancelled again
        task.cancel()
        await asyncio.wait((task,), timeout=0.01)
        assert not task.done()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


@pytest.mark.parametrize("name", ["begin", "retry"])
async def test_a_cancelled_run_keeps_its_claim_until_then(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, goes_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def block(_: Session) -> list[str]:
        loop.call_soon_threadsafe(began.set)
        goes_on.wait()
        return []

    monkeypatch.setattr(Session, name, block)
    program = Program(Sequence("a"), {"a": FunctionAgent(lambda task: None)})
    run = asyncio.create_task(execute(program, [{}], ScriptedService(()), tmp_path / "run"))
    await began.wait()
    run.cancel()
    await asyncio.wait((run,), timeout=0.05)
    assert in_use(tmp_path / "run")
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert not in_use(tmp_path / "run")
