"""Python's search for unreachable cycles, made rare while members live in a process.

Thousands of waiting tasks are many objects that live long, and each full search walks all of them; what a
turn leaves behind is freed by counting. In a process of calls this was a tenth of the CPU time.
"""

import gc
from collections.abc import Generator
from contextlib import contextmanager

_RARELY = 200_000, 50, 1_000

_found: list[tuple[int, int, int]] = []  # by each of the runs in this process; the first one's is what counts


@contextmanager
def rarely_collected() -> Generator[None]:
    """Inside the block cycles are looked for rarely; after the last of several, as before the first."""
    _found.append(gc.get_threshold())
    gc.set_threshold(*_RARELY)
    try:
        yield
    finally:
        if len(_found) == 1:
            gc.set_threshold(*_found[0])
        _found.pop()
