"""In virtual time: a loop that skips ahead instead of waiting."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

import pytest

from peerloom.runtime.transport.deadline import SLICES, Deadline

SECONDS = 10.0


class VirtualLoop(asyncio.SelectorEventLoop):
    """Whenever it would wait, its clock goes on by as much."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(VirtualSelector(self))

    def time(self) -> float:
        return self.now


class VirtualSelector(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            self._loop.now += timeout or 0.0
        return ready


def live(work: Coroutine[Any, Any, None]) -> float:
    """Run it; how long it took."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(work)
        loop = runner.get_loop()
        return loop.time()


def stop_for(seconds: float) -> None:
    """What SIGSTOP and, later, SIGCONT do to a process."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.now += seconds


async def ask(answer_after: float) -> None:
    async with Deadline(SECONDS):
        await asyncio.sleep(answer_after)


def test_who_does_not_answer_is_given_up_after_that_time():
    async def wait() -> None:
        with pytest.raises(TimeoutError):
            await ask(1_000)

    assert live(wait()) == pytest.approx(SECONDS)


def test_who_answers_in_time_is_heard():
    assert live(ask(SECONDS - 0.1)) == pytest.approx(SECONDS - 0.1)


@pytest.mark.parametrize("stopped_at", [0.1, 5.0, 9.9])
def test_a_stop_of_this_process_costs_others_nothing(stopped_at: float):
    async def wait() -> None:
        loop = asyncio.get_running_loop()
        answered = loop.create_future()

        def stopped() -> None:
            stop_for(1_000)
            loop.call_later(SECONDS / SLICES / 2, answered.set_result, None)  # it was there, but unread

        loop.call_later(stopped_at, stopped)
        async with Deadline(SECONDS):
            await answered

    assert live(wait()) > 1_000


def test_after_a_stop_the_silent_are_given_up_all_the_same():
    async def wait() -> None:
        asyncio.get_running_loop().call_later(5.0, stop_for, 1_000)
        with pytest.raises(TimeoutError):
            await ask(10_000)

    assert live(wait()) == pytest.approx(1_000 + SECONDS, abs=2 * SECONDS / SLICES)


def test_a_process_that_is_always_late_does_not_wait_for_ever():
    async def wait() -> None:
        loop = asyncio.get_running_loop()

        def stumble() -> None:
            stop_for(5 * SECONDS / SLICES)
            loop.call_later(0.01, stumble)

        stumble()
        with pytest.raises(TimeoutError):
            await ask(10_000)

    assert live(wait()) < 20 * SECONDS


def test_what_fails_inside_comes_out():
    async def fail() -> None:
        with pytest.raises(ZeroDivisionError):
            async with Deadline(SECONDS):
                raise ZeroDivisionError

    live(fail())
