"""Bytes that went over a network device, between any two moments: everything on the machine that used it."""

import time
from pathlib import Path

from benchmarks.harness.sampling import Sampler

LOOPBACK = "lo"


class TrafficMeter(Sampler):
    """Measures the bytes that a network device receives while it is entered.

    Args:
        device: a network device; loopback carries what processes of one machine send each other, except
            what they put into shared memory.
        every: seconds between two samples.
    """

    def __init__(self, device: str = LOOPBACK, *, every: float = 0.5) -> None:
        super().__init__(every)
        self._counter = Path("/sys/class/net", device, "statistics/rx_bytes")
        self._samples: list[tuple[float, int]] = []

    def moved(self, begin: float, end: float) -> float:
        """Return the bytes received between two moments, in Unix seconds; between samples, in proportion."""
        return self._until(end) - self._until(begin)

    async def _sample(self) -> None:
        self._samples.append((time.time(), int(self._counter.read_text())))

    def _until(self, moment: float) -> float:
        samples = self._samples
        after = next((n for n, (t, _) in enumerate(samples) if t >= moment and n), len(samples) - 1)
        (t0, bytes0), (t1, bytes1) = samples[after - 1], samples[after]
        return bytes0 + (bytes1 - bytes0) * min(max((moment - t0) / (t1 - t0), 0.0), 1.0)
