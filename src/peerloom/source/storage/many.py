"""The same for many files: one after the other here, side by side where each is a wait for a network."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_REQUESTS = 16

In = TypeVar("In")
Out = TypeVar("Out")


def for_all(function: Callable[[In], Out], items: Sequence[In], *, remote: bool) -> list[Out]:
    """What the function gives for each item, in their order; the first error is raised."""
    if not remote or len(items) < 2:
        return list(map(function, items))
    with ThreadPoolExecutor(_REQUESTS, "peerloom-source") as pool:
        return list(pool.map(function, items))
