"""Apply a function to many files, concurrently if they are remote."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_REQUESTS = 16

In = TypeVar("In")
Out = TypeVar("Out")


def for_all(function: Callable[[In], Out], items: Sequence[In], *, remote: bool) -> list[Out]:
    """Return the function's results for all items, in order, or raise the first error."""
    if not remote or len(items) < 2:
        return list(map(function, items))
    with ThreadPoolExecutor(_REQUESTS, "peerloom-source") as pool:
        return list(pool.map(function, items))
