"""Checks before Ray is asked: its own attempts take minutes, and end in tracebacks or in an exit."""

import os
import resource
import socket
import tempfile
from pathlib import Path

from peerloom.errors import EngineError

CONNECT_SECONDS = 5.0
LEAST_FILES = 1024  # open files; the processes of an idle cluster of one node use some hundreds
LONGEST_SOCKET = 107  # bytes of a Unix socket's path, on Linux
SESSION_CHARACTERS = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")


def check_reachable(address: str) -> None:
    """Make sure that something listens at a cluster's address. Blocks, for seconds at most.

    Raises:
        EngineError: if nothing does.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "://" in address:
        return  # `auto`, or Ray Client: Ray knows where that is
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS):
            return
    except (OSError, OverflowError, UnicodeError) as error:
        raise EngineError(
            f"no Ray cluster answers at {address} ({error}). Start it, or correct RAY_ADDRESS (ray.address); "
            "unset it for a cluster of the run's own, or choose engine=local"
        ) from error


def check_local() -> None:
    """Make sure that a cluster can be started on this machine.

    Raises:
        EngineError: if its files could not be made, or too few files may be open.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < LEAST_FILES:
        raise EngineError(
            f"Ray needs at least {LEAST_FILES} open files, but the limit is {soft} (at most {hard}): "
            f"raise it with ulimit -n {LEAST_FILES}, or choose engine=local"
        )
    given = os.environ.get("RAY_TMPDIR")
    folder = Path(given or tempfile.gettempdir())
    name = "RAY_TMPDIR" if given else "TMPDIR"
    if len(os.fsencode(folder)) + SESSION_CHARACTERS > LONGEST_SOCKET:
        raise EngineError(
            f"the path of the temporary directory is too long for Ray's sockets: {folder}. "
            f"Set {name} to a shorter one, such as /tmp, or choose engine=local"
        )
    below = folder / "ray" if (folder / "ray").exists() else folder
    if not (below.is_dir() and os.access(below, os.W_OK | os.X_OK)):
        raise EngineError(
            f"Ray cannot write to {below}. Make that directory writable, set {name} to another one, "
            "or choose engine=local"
        )
