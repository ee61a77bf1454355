import asyncio
import os
import signal
from typing import Any, cast

import pytest

from peerloom.api.interrupts import Interrupts
from peerloom.events import Notice, ViewChanged
from peerloom.runtime.driver.control import RunControl


class FakeRun:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.said: list[str] = []
        self.changed = asyncio.Event()

    def drain(self) -> None:
        self.calls.append("drain")
        self.changed.set()

    def abort(self) -> None:
        self.calls.append("abort")
        self.changed.set()

    def notify(self, notice: Notice) -> None:
        self.said.append(notice.text)


async def attached(*, admitting: bool = True) -> tuple[Interrupts, FakeRun, list[str]]:
    interrupts, run = Interrupts(), FakeRun()
    interrupts.attach(cast("RunControl", run))
    if admitting:
        interrupts.view_changed(ViewChanged(1, ("peer-0.1",)))
    return interrupts, run, run.said


async def hit(run: FakeRun) -> None:
    run.changed.clear()
    os.kill(os.getpid(), signal.SIGINT)
    await run.changed.wait()


async def test_the_first_drains_the_second_stops_the_third_breaks_off() -> None:
    interrupts, run, said = await attached()

    async def work() -> None:
        with interrupts.handling_signals():
            await hit(run)
            assert run.calls == ["drain"]
            await hit(run)
            assert run.calls == ["drain", "abort"]
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(10)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(work())
    assert "press Ctrl-C again" in said[0]


async def test_before_the_first_task_it_breaks_off_at_once() -> None:
    interrupts, run, _ = await attached(admitting=False)

    async def work() -> None:
        with interrupts.handling_signals():
            interrupts.interrupt()
            await asyncio.sleep(10)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(work())
    assert run.calls == []


async def test_the_handlers_before_are_put_back() -> None:
    before: Any = signal.getsignal(signal.SIGINT)
    interrupts, _, _ = await attached()
    with interrupts.handling_signals():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
    interrupts.interrupt()  # too late: no harm


async def test_after_the_run_an_interruption_breaks_off() -> None:
    interrupts, run, _ = await attached()

    async def work() -> None:
        with interrupts.handling_signals():
            interrupts.detach()
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(work())
    assert run.calls == []


async def test_a_closed_terminal_drains_and_an_ignored_signal_stays_ignored() -> None:
    interrupts, run, _ = await attached()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts.handling_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0.01)
            assert run.calls == []
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with interrupts.handling_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            await run.changed.wait()
        assert run.calls == ["drain"]
    finally:
        signal.signal(signal.SIGHUP, before)
