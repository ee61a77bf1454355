"""Starting and ending keepers, from whatever process is asked to: blocking, the directory between them."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from peerloom.errors import ServiceError
from peerloom.services.fleets import daemon
from peerloom.services.fleets.adapters import forget_adapters
from peerloom.services.fleets.directory import KEEPER_MARK, Entry, NoFleet, read
from peerloom.services.fleets.keeper import in_use
from peerloom.services.processes.orphans import end_marked
from peerloom.services.processes.server import failure_in_log

POLL_SECONDS = 0.05
GRACE_SECONDS = 60.0
"""What a keeper may take to stop its servers, before it is killed and they with it."""

REPORT_SECONDS = 1.0
_LOG_BYTES = 65_536


def log_dir_of(path: Path) -> Path:
    """Where the logs of a fleet go: beside its file, emptied when it is started anew."""
    return path.parent / "logs" / path.stem


def launch(
    path: Path, argv: Sequence[str], spec: bytes, timeout: float, report: Callable[[str], None]
) -> Entry:
    """Start a keeper, and wait until its fleet is up; what the directory says of it then.

    Args:
        path: the fleet's file.
        argv: the keeper's program and arguments.
        spec: what it reads from its standard input.
        timeout: seconds that may take; then the keeper is ended.
        report: told now and then how far it is, in a line.

    Raises:
        ServiceError: if the name is in use, or the fleet does not come up; with its last words.
    """
    with contextlib.suppress(NoFleet):
        before = read(path)
        if before.life in ("alive", "none"):
            raise in_use(path)
        _end_servers(before)
    logs = log_dir_of(path)
    log = logs / "keeper.log"
    forget_adapters(path)
    try:
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir(parents=True)
        command = [sys.executable, "-I", "-S", daemon.__file__, str(log), *argv]
        started = subprocess.run(command, input=spec, stdout=subprocess.PIPE, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ServiceError(f"no keeper could be started for fleet {path.stem}: {error}") from error
    pid = int(started.stdout)
    try:
        return _wait(path, pid, log, timeout, report)
    except BaseException:
        _stop(pid)
        with contextlib.suppress(ServiceError):
            _end_servers(read(path))
        raise


def end(path: Path) -> bool:
    """End a fleet, and take it out of the directory; whether its keeper did that itself.

    Raises:
        NoFleet: if there is none.
        ServiceError: if it is not ours to end.
    """
    entry = read(path)
    if entry.keeper is None:
        raise ServiceError(
            f"fleet {path.stem} was not started by `peerloom serve up`: remove {path} yourself"
        )
    life = entry.life
    if life == "alive" and entry.keeper.host != socket.gethostname():
        raise ServiceError(
            f"the keeper of fleet {path.stem} runs on {entry.keeper.host}: "
            f"`peerloom serve down {path.stem}` has to be called there"
        )
    by_itself = life == "alive" and _stop(entry.keeper.pid) and not path.exists()
    _end_servers(entry)
    forget_adapters(path)
    path.unlink(missing_ok=True)
    return by_itself


def _end_servers(entry: Entry) -> None:
    """Wait for the servers on this machine of a keeper that is gone, and kill what is left of them."""
    if entry.keeper is not None and entry.keeper.host == socket.gethostname():
        asyncio.run(end_marked(KEEPER_MARK, entry.keeper.mark))


def _wait(path: Path, pid: int, log: Path, timeout: float, report: Callable[[str], None]) -> Entry:
    deadline, reported, written = time.monotonic() + timeout, 0.0, False
    while True:
        entry = None
        gone = not _lives(pid)  # looked at first: what it wrote last is read then
        with contextlib.suppress(NoFleet):
            entry = read(path)
        if entry is not None and entry.keeper is not None and entry.keeper.pid == pid:
            written = True
            if entry.state == "up":
                return entry
            if entry.state == "failed":
                raise ServiceError(f"fleet {path.stem} did not come up: {entry.detail}")
        if gone and written and entry is None:
            raise ServiceError(f"fleet {path.stem} was taken down before it was up")
        if gone:
            raise ServiceError(
                f"the keeper of fleet {path.stem} has ended. {failure_in_log(str(log), _text(log))}"
            )
        if time.monotonic() - reported > REPORT_SECONDS:
            reported = time.monotonic()
            report(_progress(entry, log))
        if time.monotonic() > deadline:
            newest = _newest(log)
            raise ServiceError(
                f"fleet {path.stem} was not up after {timeout:g} s (--timeout). "
                + failure_in_log(str(newest), _text(newest))
            )
        time.sleep(POLL_SECONDS)


def _stop(pid: int) -> bool:
    """End a keeper; whether it ended as it was asked to."""
    try:
        process = psutil.Process(pid)
        process.terminate()
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(GRACE_SECONDS)
            return True
        process.kill()
        process.wait(GRACE_SECONDS)
    except (psutil.NoSuchProcess, psutil.TimeoutExpired):
        pass
    return False


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _progress(entry: Entry | None, log: Path) -> str:
    """How many servers are up, and the last line in the log of the one that has written last.

    Of one that has no servers yet, what its keeper waits for.
    """
    states = [endpoint.state for endpoint in entry.endpoints] if entry is not None else []
    if entry is not None and entry.detail and not states:
        return f"starting; {entry.detail.splitlines()[0]}"
    newest = _newest(log)
    lines = _text(newest).rstrip().splitlines()
    said = f"; {newest.name}: {lines[-1].strip()}" if lines else ""
    return f"{states.count('up')} of {len(states)} servers up{said}" if states else f"starting{said}"


def _newest(log: Path) -> Path:
    """The log that was written last, beside the keeper's own."""
    return max(log.parent.glob("*.log"), key=lambda file: file.stat().st_mtime, default=log)


def _text(log: Path) -> str:
    """The end of a log; empty if it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
