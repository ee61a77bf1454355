"""Limit the time that an agent takes for a turn, and report agents that block the event loop."""

import asyncio
import sys
import threading
import types
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TypeVar

from peerloom.errors import TaskError

GRACE_SECONDS = 1.0
"""The time a cancelled agent has to return; afterwards it is abandoned."""
TICK_SECONDS = 1.0
TICKS = 5
"""Consecutive ticks of the watchdog without an iteration of the event loop before it reports."""


Result = TypeVar("Result")

_abandoned: list[object] = []  # kept: finalizing one would resume it once more


class AgentTimeout(TaskError):
    """An agent did not return in time."""

    reason = "agent_timeout"


class TurnTimer:
    """Limits the time of an agent's turn, not counting the time of its calls."""

    def __init__(self, role: str, seconds: float) -> None:
        self._role = role
        self._seconds = self._left = seconds
        self._scope = asyncio.timeout(seconds)
        self._since = 0.0
        self._calls = 0
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._forced = False

    @types.coroutine
    def bound(self, awaitable: Awaitable[Result]) -> Generator[Any, None, Result]:
        """Await an agent within this context; abandon one that does not return after its cancellation."""
        steps = awaitable.__await__()
        error: BaseException | None = None
        while True:
            try:
                waited = next(steps) if error is None else steps.throw(error)
            except StopIteration as done:
                return done.value
            if error is not None and self._scope.expired() and self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(GRACE_SECONDS, self._force_cancel)
            error = None
            try:
                yield waited
            except BaseException as raised:
                if self._forced:
                    _abandoned.append(steps)
                    raise
                error = raised

    def _force_cancel(self) -> None:
        assert self._task is not None
        self._forced = True
        self._task.cancel()

    async def __aenter__(self) -> "TurnTimer":
        self._task = asyncio.current_task()
        await self._scope.__aenter__()
        self._since = asyncio.get_running_loop().time()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._forced and self._task is not None:
            self._task.uncancel()
        try:
            await self._scope.__aexit__(kind, error, traceback)
        except TimeoutError:
            key = f"agents.{self._role}.timeout"
            raise AgentTimeout(f"{self._role} has not returned within {self._seconds:g} s ({key})") from None

    def pause(self) -> None:
        """Stop the clock while a call is under way."""
        if not self._calls:
            self._left -= asyncio.get_running_loop().time() - self._since
            self._reschedule(None)
        self._calls += 1

    def resume(self) -> None:
        """Restart the clock when the last call has ended."""
        self._calls -= 1
        if not self._calls:
            self._since = asyncio.get_running_loop().time()
            self._reschedule(self._since + max(0.0, self._left))

    def _reschedule(self, when: float | None) -> None:
        with suppress(RuntimeError):  # expired, or the agent has returned before its call
            self._scope.reschedule(when)


class Watchdog:
    """Reports agents that block the event loop, such as with `time.sleep`.

    A thread counts its own ticks without an iteration of the loop, so that neither a stopped process nor a
    busy machine looks like a blocking agent. `code` are the code objects that run agents, with a local
    variable `role`. `warn` is called from the thread.
    """

    def __init__(self, code: "frozenset[object]", warn: Callable[[str], None]) -> None:
        self._code = code
        self._warn = warn
        self._thread = threading.Thread(target=self._watch, name="peerloom-watchdog", daemon=True)
        self._stopped = threading.Event()
        self._rounds = 0

    async def run(self) -> None:
        """Watch the running loop until cancelled."""
        self._loop_thread = threading.get_ident()
        self._thread.start()
        try:
            while True:
                self._rounds += 1
                await asyncio.sleep(TICK_SECONDS / 2)
        finally:
            self._stopped.set()

    def _watch(self) -> None:
        seen, ticks = -1, 0
        while not self._stopped.wait(TICK_SECONDS):
            ticks = ticks + 1 if seen == self._rounds else 0
            seen = self._rounds
            if ticks == TICKS:
                frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage] - no public API
                self._report(frames.get(self._loop_thread))

    def _report(self, frame: FrameType | None) -> None:
        place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame is not None else "?"
        while frame is not None and frame.f_code not in self._code:
            frame = frame.f_back
        if frame is not None and "role" in frame.f_locals:
            self._warn(
                f"agent {frame.f_locals['role']!r} has blocked the event loop for {TICKS * TICK_SECONDS:g} s "
                f"({place}), so no other task of its peer goes on: await what takes time, or put it into "
                "asyncio.to_thread"
            )
