"""Handle Ctrl-C: the first drains the run, the second stops it at once, the third cancels everything.

SIGTERM, and SIGHUP of a closed terminal, count as Ctrl-C. Signals that the process was started to ignore, as
by nohup, stay ignored. Before the first task is admitted there is nothing to drain, so the first Ctrl-C
cancels everything.
"""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Generator
from typing import Any

from peerloom.events import Hooks, Notice, ViewChanged
from peerloom.runtime.driver.control import RunControl

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts(Hooks):
    """Handler of interruptions of one run, which is also one of the run's hooks.

    Attributes:
        count: the number of interruptions.
    """

    def __init__(self) -> None:
        self.count = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._control: RunControl | None = None
        self._admitting = False

    def attach(self, control: RunControl) -> None:
        """Drain and stop the run on interruptions from now on, and notify the user."""
        self._control = control

    def detach(self) -> None:
        """Cancel everything on interruptions from now on: the run is over."""
        self._control = None

    def view_changed(self, event: ViewChanged) -> None:
        """Note that the members are ready, and tasks are admitted."""
        self._admitting = True

    @contextlib.contextmanager
    def handling_signals(self) -> Generator[None]:
        """Handle `interrupt`, and in the main thread also signals, inside the block, for the current task."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        main = threading.current_thread() is threading.main_thread()
        found = {number: signal.getsignal(number) for number in _SIGNALS if main}
        replaced = {number: handler for number, handler in found.items() if handler is not signal.SIG_IGN}
        for number in replaced:
            self._loop.add_signal_handler(number, self._interrupt)
        try:
            yield
        finally:
            for number, handler in replaced.items():
                self._loop.remove_signal_handler(number)
                signal.signal(number, handler)
            self._loop = None

    def interrupt(self) -> None:
        """Interrupt the run, from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._interrupt)

    def _interrupt(self) -> None:
        self.count += 1
        if self._control is None or not self._admitting or self.count > 2:
            assert self._task is not None
            self._task.cancel()
        elif self.count == 1:
            self._control.drain()
            text = "interrupted: finishing the tasks in flight; press Ctrl-C again to stop at once"
            self._control.notify(Notice("warning", text))
        else:
            self._control.abort()
            self._control.notify(Notice("warning", "stopping; rows written so far are kept"))
