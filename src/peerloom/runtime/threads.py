"""Threads that change a run directory: a cancellation waits for their end, since they cannot be stopped.

Otherwise the claim of the directory would be given back while one goes on writing.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def to_its_end(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """As `asyncio.to_thread`; if cancelled meanwhile, it first waits until the thread is done."""
    # Not a task: whoever cancels all tasks of the loop would cancel that one and not wait.
    future = asyncio.get_running_loop().run_in_executor(None, partial(work, *args, **kwargs))
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        future.exception()  # the cancellation comes first
        raise cancelled
    return future.result()
