"""A deadline on others that only counts the time in which this process itself has run.

A process that is stopped (SIGSTOP, a swapping host) and goes on finds every deadline past and all answers
still unread. So a deadline is counted in slices: however long the stop was, it costs one of them; and the
last slice must not have been such a one, so that there was time to hear what had come meanwhile.
"""

import asyncio
from types import TracebackType

SLICES = 10
MAX_EXTRA = 10  # slices for a process that is always late: it cannot wait for ever
_LATE = 2.0  # a slice that took so many times its length was not this process's own


class Deadline:
    """Like `asyncio.timeout`, for what others have to do within `seconds`.

    Raises:
        TimeoutError: on leaving, if the time was up first.
    """

    def __init__(self, seconds: float) -> None:
        self._slice = seconds / SLICES
        self._left = SLICES
        self._timeout = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._timeout.__aenter__()
        self._wait()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._timer is not None
        self._timer.cancel()
        return await self._timeout.__aexit__(kind, error, trace)

    def _wait(self) -> None:
        self._since = self._loop.time()
        self._timer = self._loop.call_later(self._slice, self._slice_over)

    def _slice_over(self) -> None:
        late = self._loop.time() - self._since > _LATE * self._slice
        self._left -= 1
        if self._left > 0 or (late and self._left > -MAX_EXTRA):
            self._wait()
        else:
            self._timeout.reschedule(self._loop.time())
