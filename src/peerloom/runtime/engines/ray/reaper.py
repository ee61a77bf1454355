"""Ends what a local Ray cluster leaves behind when its driver is killed.

Most of Ray's processes notice a dead driver within seconds, but its agents first try to tell a dead
cluster about it, for up to a minute. This script waits for its standard input to close, which happens
however the driver ends, and then kills every process of the cluster: those that carry its mark in their
environment, and those that were seen below one of them (some overwrite their environment with a title).
Only the standard library, and nothing of this package: it starts in milliseconds.
"""

import contextlib
import os
import select
import signal
import sys
import time

MARK = "PEERLOOM_CLUSTER"
WATCH_SECONDS = 1.0
ROUNDS = 20
ROUND_SECONDS = 0.25

Process = tuple[int, str]  # its id, and when it started: ids are used again


def main() -> None:
    """Watch the cluster until the driver's end, then end it."""
    mark = f"{MARK}={sys.argv[1]}".encode()
    seen: set[Process] = set()
    while not select.select([sys.stdin], [], [], WATCH_SECONDS)[0]:
        seen = _cluster(mark, seen)
    for _ in range(ROUNDS):
        seen = _cluster(mark, seen)
        for pid, _started in seen:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not seen:
            return
        time.sleep(ROUND_SECONDS)


def _cluster(mark: bytes, seen: set[Process]) -> set[Process]:
    """The living processes of the cluster: marked, seen before, or below one of these."""
    parents: dict[Process, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                state, parent, started = _stat(name)
                if state != "Z":
                    parents[int(name), started] = parent
    found = {process for process in parents if process in seen or _carries(process[0], mark)}
    while True:
        pids = {pid for pid, _started in found}
        below = {process for process, parent in parents.items() if parent in pids} - found
        if not below:
            return found
        found |= below


def _stat(pid: str) -> tuple[str, int, str]:
    """A process's state, its parent, and its start in ticks."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return fields[0], int(fields[1]), fields[19]


def _carries(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as environ:
            return mark in environ.read().split(b"\0")
    except OSError:
        return False  # it has ended, or is somebody else's


if __name__ == "__main__":
    main()
