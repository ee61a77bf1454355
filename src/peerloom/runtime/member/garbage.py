"""Make Python's cyclic garbage collection infrequent while members run in a process.

Thousands of waiting tasks are many long-lived objects, and each full collection visits all of them, while
the garbage of a turn is freed by reference counting. Collection took a tenth of the CPU time of a peer.
"""

import gc
from collections.abc import Generator
from contextlib import contextmanager

_THRESHOLD = 200_000, 50, 1_000

_saved_thresholds: list[tuple[int, int, int]] = []  # one for each run in this process


@contextmanager
def infrequent_gc() -> Generator[None]:
    """Raise the thresholds of the collector within the block; the last of nested blocks restores them."""
    _saved_thresholds.append(gc.get_threshold())
    gc.set_threshold(*_THRESHOLD)
    try:
        yield
    finally:
        if len(_saved_thresholds) == 1:
            gc.set_threshold(*_saved_thresholds[0])
        _saved_thresholds.pop()
