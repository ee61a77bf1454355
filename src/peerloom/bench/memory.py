"""Memory of a process and all below it: what they share counts once (the kernel's PSS)."""

import asyncio
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil

SAMPLE_SECONDS = 0.5


class MemoryMeter:
    """Samples while it is entered. Local processes only.

    Args:
        root: the process.
        without: a child process that does not count.

    Attributes:
        peak: the most bytes of any sample.
    """

    def __init__(self, root: psutil.Process, *, without: int) -> None:
        self.peak = 0
        self._root = root
        self._without = without
        self._sampling: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "MemoryMeter":
        self._sampling = asyncio.create_task(self._sample_for_ever())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._sampling is not None
        self._sampling.cancel()
        await asyncio.wait((self._sampling,))

    async def _sample_for_ever(self) -> None:
        while True:
            self.peak = max(self.peak, await asyncio.to_thread(self._sample))
            await asyncio.sleep(SAMPLE_SECONDS)

    def _sample(self) -> int:
        pids = [self._root.pid, *(child.pid for child in self._root.children(recursive=True))]
        return sum(_bytes_of(pid) for pid in pids if pid != self._without)


def _bytes_of(pid: int) -> int:
    with suppress(OSError):  # it has ended
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
