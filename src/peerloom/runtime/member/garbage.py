"""Python's search for unreachable cycles, made rare while members live in a process.

Thousands of waiting tasks are many objects that live long, and each full search walks all of them; what a
turn leaves behind is freed by counting. In a process of calls this was a tenth of the CPU time.
"""

import gc
from collections.abc import Generator
from contextlib import contextmanager

_THRESHOLD = 200_000, 50, 1_000

_saved_thresholds: list[
    tuple[int, int, int]
] = []  # by each of the runs in this process; the first one's is what counts


@contextmanager
def infrequent_gc() -> Generator[None]:
    """Inside the block cycles are looked for rarely; after the last of several, as before the first."""
    _saved_thresholds.append(gc.get_threshold())
    gc.set_threshold(*_THRESHOLD)
    try:
        yield
    finally:
        if len(_saved_thresholds) == 1:
            gc.set_threshold(*_saved_thresholds[0])
        _saved_thresholds.pop()
