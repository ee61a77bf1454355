"""Memory of a process and all below it: what they share counts once (the kernel's PSS)."""

import asyncio
from contextlib import suppress
from pathlib import Path

import psutil

from peerloom.bench.sampling import Sampler


class MemoryMeter(Sampler):
    """Samples while it is entered. Local processes only.

    Args:
        without: a child process that does not count.

    Attributes:
        peak: the most bytes of any sample.
    """

    def __init__(self, *, without: int) -> None:
        self.peak = 0
        self._without = without

    async def _sample(self) -> None:
        self.peak = max(self.peak, await asyncio.to_thread(self._measure))

    def _measure(self) -> int:
        me = psutil.Process()
        pids = [me.pid, *(child.pid for child in me.children(recursive=True))]
        return sum(_bytes_of(pid) for pid in pids if pid != self._without)


def _bytes_of(pid: int) -> int:
    with suppress(OSError):  # it has ended
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
