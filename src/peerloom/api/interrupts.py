"""What Ctrl-C does to a run: the first drains it, the second stops it at once, a third breaks off.

SIGTERM and SIGHUP, of a terminal that is closed, count as Ctrl-C. Signals that the process was started to
ignore, as by nohup, stay ignored. Before the first task is admitted there is nothing to drain, so the first
already breaks off.
"""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Generator
from typing import Any

from peerloom.events import Hooks, ViewChanged
from peerloom.runtime.driver.run import Run

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts(Hooks):
    """Passes interruptions on to one run. Hears of the run's members as one of its hooks."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._run: Run | None = None
        self._say: Callable[[str], None] | None = None
        self._admitting = False
        self._hits = 0

    @property
    def hits(self) -> int:
        """How often the run was interrupted."""
        return self._hits

    def attach(self, run: Run, say: Callable[[str], None]) -> None:
        """From now on `run` is what is interrupted; `say` tells the user what happens."""
        self._run, self._say = run, say

    def detach(self) -> None:
        """The run is over: an interruption from now on breaks off."""
        self._run = None

    def view_changed(self, event: ViewChanged) -> None:
        """All members are there: tasks are on their way."""
        self._admitting = True

    @contextlib.contextmanager
    def listening(self) -> Generator[None]:
        """Inside, in the current task, `hit` works; in the main thread signals do too."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        main = threading.current_thread() is threading.main_thread()
        found = {number: signal.getsignal(number) for number in _SIGNALS if main}
        before = {number: handler for number, handler in found.items() if handler is not signal.SIG_IGN}
        for number in before:
            self._loop.add_signal_handler(number, self._hit)
        try:
            yield
        finally:
            for number, handler in before.items():
                self._loop.remove_signal_handler(number)
                signal.signal(number, handler)
            self._loop = None

    def hit(self) -> None:
        """Interrupt, from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._hit)

    def _hit(self) -> None:
        self._hits += 1
        if self._run is None or self._say is None or not self._admitting or self._hits > 2:
            assert self._task is not None
            self._task.cancel()
        elif self._hits == 1:
            self._run.drain()
            self._say("interrupted: finishing the tasks in flight; press Ctrl-C again to stop at once")
        else:
            self._run.abort()
            self._say("stopping; rows written so far are kept")
