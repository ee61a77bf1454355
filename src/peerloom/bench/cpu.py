"""CPU time of this process and all below it, between any two moments: Ray's own processes included."""

import time
from bisect import bisect_left

import psutil

from peerloom.bench.sampling import Sampler


class CpuMeter(Sampler):
    """Samples while it is entered. Local processes only.

    Args:
        without: a child process that does not count, nor do those below it.
    """

    def __init__(self, *, without: int | None = None) -> None:
        self._without = without
        self._used: dict[int, float] = {}  # by process, the dead included
        self._samples: list[tuple[float, float]] = []  # Unix seconds, CPU seconds until then

    def used(self, begin: float, end: float) -> float:
        """CPU seconds between two moments, in Unix seconds; in between samples, in proportion."""
        return self._until(end) - self._until(begin)

    async def _sample(self) -> None:
        me = psutil.Process()
        ignored: set[int] = set()
        if self._without is not None and psutil.pid_exists(self._without):
            root = psutil.Process(self._without)
            ignored = {root.pid, *(child.pid for child in root.children(recursive=True))}
        for process in (me, *me.children(recursive=True)):
            if process.pid not in ignored:
                try:
                    times = process.cpu_times()
                except psutil.NoSuchProcess:
                    continue
                self._used[process.pid] = times.user + times.system
        self._samples.append((time.time(), sum(self._used.values())))

    def _until(self, moment: float) -> float:
        samples = self._samples
        after = min(max(bisect_left(samples, (moment,)), 1), len(samples) - 1)
        (t0, cpu0), (t1, cpu1) = samples[after - 1], samples[after]
        return cpu0 + (cpu1 - cpu0) * min(max((moment - t0) / (t1 - t0), 0.0), 1.0)
