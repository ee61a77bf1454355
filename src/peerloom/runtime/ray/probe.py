"""Checks before Ray is asked: its own attempts take minutes, and end in tracebacks or in an exit."""

import asyncio
import os
import resource
import sys
import tempfile
from pathlib import Path

from peerloom.errors import EngineError

CONNECT_SECONDS = 3.0
STATUS_SECONDS = 6.0
_STATUS = "from ray.scripts.scripts import main; main()"
_NULL, _PIPE = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
_LONGEST = 300  # characters of Ray's words
LEAST_FILES = 1024  # open files; the processes of an idle cluster of one node use some hundreds
LONGEST_SOCKET = 107  # bytes of a Unix socket's path, on Linux
SESSION_CHARACTERS = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")


async def check_reachable(address: str) -> None:
    """Make sure that a cluster at an address takes this process in; takes 10 seconds at most.

    Raises:
        EngineError: if nothing answers there, or it is of another version, or asks for another token.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "://" in address:
        return  # `auto`, or Ray Client: Ray knows where that is
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            writer.close()
            await writer.wait_closed()
    except (OSError, TimeoutError, OverflowError, UnicodeError) as error:
        raise EngineError(
            f"no Ray cluster answers at {address} ({error or 'timed out'}). Start it, or correct RAY_ADDRESS "
            "(ray.address); unset it for a cluster of the run's own, or choose engine=local"
        ) from error
    await _check_status(address)


async def _check_status(address: str) -> None:
    """Run `ray status` in a process that can be killed, as Ray waits long for a server that says nothing."""
    command = (sys.executable, "-c", _STATUS, "status", "--address", address)
    process = await asyncio.create_subprocess_exec(*command, stdin=_NULL, stdout=_NULL, stderr=_PIPE)
    try:
        async with asyncio.timeout(STATUS_SECONDS):
            _, stderr = await process.communicate()
    except TimeoutError as error:
        raise EngineError(
            f"what listens at {address} does not answer as a Ray cluster does. Correct RAY_ADDRESS "
            "(ray.address), to the port of the head node's GCS (6379 by default)"
        ) from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 0:
        return
    told = stderr.decode(errors="replace").strip().rpartition("\n")[2]
    if "Authentication" in told or "InvalidAuthToken" in told:
        raise EngineError(
            f"the Ray cluster at {address} asks for another token: set RAY_AUTH_MODE=token, and its token in "
            "RAY_AUTH_TOKEN or in the file that RAY_AUTH_TOKEN_PATH names"
        )
    if "version mismatch" in told.lower():
        raise EngineError(
            f"the Ray cluster at {address} is of another version ({told[:_LONGEST]}): install the same "
            "version of ray on both sides"
        )
    raise EngineError(f"cannot use Ray at {address}: {told[:_LONGEST]}")


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
