"""Check the environment for Ray, whose own checks take minutes, and end in tracebacks or an exit."""

import asyncio
import os
import re
import resource
import sys
import tempfile
from pathlib import Path

from peerloom.errors import EngineError

CONNECT_SECONDS = 3.0
STATUS_SECONDS = 6.0
IMPORT_SECONDS = 60.0
"""The time a busy machine may take to import Ray, before the status of the cluster is requested."""

_STATUS = "from ray.scripts.scripts import main; print(flush=True); main()"
_NULL, _PIPE = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
_TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_NO_TOKEN = re.compile(r"AuthenticationError|InvalidAuthToken|authentication_token_loader")
"""Matches the output of Ray without the right token; the last part, without any token."""
_MAX_LINE = 300  # characters of Ray's output in a message
MIN_OPEN_FILES = 1024  # open files; an idle cluster of one node uses some hundreds
MAX_SOCKET_PATH = 107  # bytes of a Unix socket's path, on Linux
SESSION_CHARACTERS = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")


async def check_reachable(address: str) -> None:
    """Check that a cluster at an address accepts this process, in about 10 seconds plus the import of Ray.

    Raises:
        EngineError: if no cluster answers there, or it has another version or requires another token.
    """
    if address == "auto":
        output = await _status(address, _environment_for_auto())
        if output is not None and _NO_TOKEN.search(output):  # Ray itself reports other errors well
            raise token_refused(address)
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "://" in address:
        return  # an address of Ray Client
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
    _check_output(address, await _status(address, None))


def _check_output(address: str, output: str | None) -> None:
    if output is None:
        raise EngineError(
            f"what listens at {address} does not answer as a Ray cluster does. Correct RAY_ADDRESS "
            "(ray.address), to the port of the head node's GCS (6379 by default)"
        )
    line = output.rpartition("\n")[2]
    if _NO_TOKEN.search(output):
        raise token_refused(address)
    if "version mismatch" in line.lower():
        raise EngineError(
            f"the Ray cluster at {address} is of another version ({line[:_MAX_LINE]}): install the same "
            "version of ray on both sides"
        )
    if line:
        raise EngineError(f"cannot use Ray at {address}: {line[:_MAX_LINE]}")


async def _status(address: str, environment: dict[str, str] | None) -> str | None:
    """Return the error of `ray status`; empty if there is none, None after a timeout."""
    # In a process, which can be killed, since Ray waits long for a server that does not answer.
    command = (sys.executable, "-c", _STATUS, "status", "--address", address)
    process = await asyncio.create_subprocess_exec(
        *command, stdin=_NULL, stdout=_PIPE, stderr=_PIPE, env=environment
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(IMPORT_SECONDS):
            await process.stdout.readline()
        async with asyncio.timeout(STATUS_SECONDS):
            _, stderr = await process.communicate()
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    error = stderr.decode(errors="replace").strip()
    return "" if process.returncode == 0 else error or f"`ray status` ended with {process.returncode}"


def _environment_for_auto() -> dict[str, str] | None:
    """Return an environment with the token mode, which Ray enables for `auto`, but not for `ray status`."""
    there = any(os.environ.get(name) for name in _TOKENS) or Path("~/.ray/auth_token").expanduser().exists()
    return {**os.environ, "RAY_AUTH_MODE": "token"} if there and "RAY_AUTH_MODE" not in os.environ else None


def token_refused(address: str) -> EngineError:
    """Return the error for a cluster with token authentication whose token this process lacks."""
    mode = os.environ.get("RAY_AUTH_MODE", "")
    given = next((name for name in _TOKENS if os.environ.get(name)), "~/.ray/auth_token")
    if mode.lower() != "token":
        has = f"RAY_AUTH_MODE is {mode or 'not set'}"
    else:
        has = f"{given} has none or another"
    return EngineError(
        f"the Ray cluster at {address} asks for its token, and {has}: set RAY_AUTH_MODE=token, and the token "
        "in RAY_AUTH_TOKEN, in the file that RAY_AUTH_TOKEN_PATH names, or in ~/.ray/auth_token "
        "(`ray get-auth-token` prints it on the cluster's head node)"
    )


def check_local() -> None:
    """Check that a cluster can be started on this machine.

    Raises:
        EngineError: if its files cannot be created, or the limit of open files is too low.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < MIN_OPEN_FILES:
        raise EngineError(
            f"Ray needs at least {MIN_OPEN_FILES} open files, but the limit is {soft} (at most {hard}): "
            f"raise it with ulimit -n {MIN_OPEN_FILES}, or choose engine=local"
        )
    given = os.environ.get("RAY_TMPDIR")
    folder = Path(given or tempfile.gettempdir())
    name = "RAY_TMPDIR" if given else "TMPDIR"
    if len(os.fsencode(folder)) + SESSION_CHARACTERS > MAX_SOCKET_PATH:
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
