"""Limit the wait for other processes, not counting the time in which this process was suspended.

After a suspension (SIGSTOP, a swapping host), all deadlines have passed while answers are still unread. A
deadline here therefore consists of slices. A suspension of any length costs one slice, and the last slice
must not contain one, so that there is time to read the answers.
"""

import asyncio
from types import TracebackType

SLICES = 10
MAX_EXTRA = 10  # slices for a process that is always late, which must not wait for ever
_LATE = 2.0  # a slice longer than this multiple of its length contains a suspension


class Deadline:
    """Limits the time of its block, like `asyncio.timeout`, not counting suspensions of this process.

    Raises:
        TimeoutError: on exit, if the block took longer than `seconds`.
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
