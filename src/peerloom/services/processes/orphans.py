"""Find and end processes by an environment variable that their descendants inherit.

This is the fallback for supervisors (`services.processes.children`) that were killed themselves: after that,
only the variable shows to which run or fleet a process belongs.
"""

import asyncio
import time
from collections.abc import Iterator

import psutil

_GRACE_SECONDS = 3.0
_POLL_SECONDS = 0.05


async def end_marked(name: str, value: str) -> None:
    """Wait until no process has this environment variable; kill those left after a grace period.

    Args:
        name: the name of the environment variable.
        value: its value, unique to the processes to be ended.
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
