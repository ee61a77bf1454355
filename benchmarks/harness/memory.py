"""Memory of a process and all below it: what they share counts once (the kernel's PSS)."""

import asyncio
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.harness.sampling import SAMPLE_SECONDS, Sampler


class MemoryMeter(Sampler):
    """Measures memory while it is entered, of local processes only.

    Args:
        root: the process at the top; default this one.
        without: a process below it that does not count.
        every: seconds between two samples.

    Attributes:
        peak: the most bytes of any sample.
    """

    def __init__(
        self, *, root: int | None = None, without: int | None = None, every: float = SAMPLE_SECONDS
    ) -> None:
        super().__init__(every)
        self.peak = 0
        self._root = root
        self._without = without

    async def _sample(self) -> None:
        self.peak = max(self.peak, await asyncio.to_thread(self._measure))

    def _measure(self) -> int:
        with suppress(psutil.NoSuchProcess):
            top = psutil.Process(self._root)
            pids = [top.pid, *(child.pid for child in top.children(recursive=True))]
            return sum(_bytes_of(pid) for pid in pids if pid != self._without)
        return 0


def _bytes_of(pid: int) -> int:
    with suppress(OSError):  # it has ended
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
