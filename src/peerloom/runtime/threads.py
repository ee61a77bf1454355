"""Run blocking work in a thread, and wait for its end even if the caller is cancelled.

A thread cannot be stopped. Without the wait, the lock of a run directory could be released while a thread
still writes there.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def to_its_end(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run `work` like `asyncio.to_thread`, but let a cancellation wait until the thread is done."""
    # A future, not a task: code that cancels all tasks of the loop must not end this wait.
    future = asyncio.get_running_loop().run_in_executor(None, partial(work, *args, **kwargs))
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        future.exception()  # mark as retrieved: the cancellation takes precedence
        raise cancelled
    return future.result()
