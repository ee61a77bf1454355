"""Kill the processes of a local Ray cluster whose driver was killed.

Most processes of Ray notice a dead driver within seconds, but its agents keep trying to notify the dead
cluster for up to a minute. This script waits for its standard input to close, which happens however the
driver ends, and then kills every process of the cluster: those with its mark in their environment, and
their descendants (some overwrite their environment with a title). It imports only the standard library,
and nothing of this package, so that it starts in milliseconds.
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

Process = tuple[int, str]  # its id and start time, since ids are reused


def main() -> None:
    """Watch the cluster until the driver ends, then kill it."""
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
    """Return the living processes of the cluster: marked, seen before, or a descendant of these."""
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
    """Return the state of a process, its parent, and its start in ticks."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return fields[0], int(fields[1]), fields[19]


def _carries(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as environ:
            return mark in environ.read().split(b"\0")
    except OSError:
        return False  # ended, or of another user


if __name__ == "__main__":
    main()
