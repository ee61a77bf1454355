"""Finds and ends processes by a mark in their environment, which all that they start inherit.

This is the last resort: the supervisors of `services.children` end what is below them, unless they are killed
themselves, and then only the mark tells whose a process was.
"""

import asyncio
import time
from collections.abc import Iterator

import psutil

_GRACE_SECONDS = 3.0
_POLL_SECONDS = 0.05


async def end_marked(name: str, value: str) -> None:
    """Wait until no process has a variable of this value in its environment; kill those that stay.

    Args:
        name: of the environment variable.
        value: a text that no other process would have there.
    """
    deadline = time.monotonic() + _GRACE_SECONDS
    while left := await asyncio.to_thread(list, _marked(name, value)):
        if time.monotonic() >= deadline:
            for process in left:
                _kill(process)
        await asyncio.sleep(_POLL_SECONDS)


def _marked(name: str, value: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if process.environ().get(name) == value and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except psutil.Error:
            continue  # it has ended, or is another user's


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.Error:
        pass
