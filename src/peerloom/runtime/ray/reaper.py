"""Ends what a local Ray cluster leaves behind when its driver is killed.

Most of Ray's processes notice a dead driver within seconds, but its agents first try to tell a dead
cluster about it, for up to a minute. This script waits for its standard input to close, which happens
however the driver ends, and then kills every process that carries the cluster's mark in its environment.
Only the standard library, and nothing of this package: it starts in milliseconds.
"""

import contextlib
import os
import signal
import sys
import time

MARK = "PEERLOOM_CLUSTER"
ROUNDS = 20
ROUND_SECONDS = 0.25


def main() -> None:
    """Wait for the driver's end, then for that of its cluster."""
    mark = f"{MARK}={sys.argv[1]}".encode()
    sys.stdin.buffer.read()
    for _ in range(ROUNDS):
        marked = [pid for pid in _processes() if _carries(pid, mark)]
        for pid in marked:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not marked:
            return
        time.sleep(ROUND_SECONDS)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def _carries(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as environ:
            return mark in environ.read().split(b"\0")
    except OSError:
        return False  # it has ended, or is somebody else's


if __name__ == "__main__":
    main()
