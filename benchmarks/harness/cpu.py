"""CPU time of a process and all below it, between any two moments: Ray's own processes included."""

import time
from bisect import bisect_left

import psutil

from benchmarks.harness.sampling import SAMPLE_SECONDS, Sampler


class CpuMeter(Sampler):
    """Measures CPU time while it is entered, of local processes only.

    Args:
        root: the process at the top; default this one.
        without: a process below it that does not count, nor do those below that one.
        every: seconds between two samples.
    """

    def __init__(
        self, *, root: int | None = None, without: int | None = None, every: float = SAMPLE_SECONDS
    ) -> None:
        super().__init__(every)
        self._root = root
        self._without = without
        self._used: dict[int, float] = {}  # by process, the dead included
        self._samples: list[tuple[float, dict[int, float]]] = []  # Unix seconds, CPU seconds until then

    def used(self, begin: float, end: float, process: int | None = None) -> float:
        """Return the CPU seconds used between two moments; between samples, in proportion.

        Args:
            begin: from then on.
            end: until then.
            process: of this one only; default all.
        """
        return self._until(end, process) - self._until(begin, process)

    async def _sample(self) -> None:
        ignored: set[int] = set()
        if self._without is not None:
            ignored = {process.pid for process in _tree(self._without)}
        for process in _tree(self._root):
            if process.pid not in ignored:
                try:
                    times = process.cpu_times()
                except psutil.Error:
                    continue
                self._used[process.pid] = times.user + times.system
        self._samples.append((time.time(), dict(self._used)))

    def _until(self, moment: float, process: int | None) -> float:
        samples = self._samples
        after = min(
            max(bisect_left(samples, moment, key=lambda sample: sample[0]), 1),
            len(samples) - 1,
        )
        (t0, used0), (t1, used1) = samples[after - 1], samples[after]
        cpu0, cpu1 = _sum(used0, process), _sum(used1, process)
        return cpu0 + (cpu1 - cpu0) * min(max((moment - t0) / (t1 - t0), 0.0), 1.0)


def _sum(used: dict[int, float], process: int | None) -> float:
    return sum(used.values()) if process is None else used.get(process, 0.0)


def _tree(root: int | None) -> list[psutil.Process]:
    """Return a process and all below it, as far as they are alive."""
    try:
        top = psutil.Process(root)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
