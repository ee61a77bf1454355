"""Start a fleet, keep it alive, and publish its endpoints in the directory.

A supervisor is a detached process, started by `serve up`. Its servers end with it
(`services.processes.children`), and `serve down` and the next supervisor wait until they have. A lock file
beside the fleet's file allows one supervisor for each name.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import msgspec

from peerloom.errors import ServiceError, first_error
from peerloom.services.fleets.directory import (
    HEARTBEAT_SECONDS,
    SUPERVISOR_MARK,
    Entry,
    Listed,
    NoFleet,
    read,
    this_process,
    write,
)
from peerloom.services.processes.group import Group
from peerloom.services.processes.replica import Notify
from peerloom.services.processes.spawn import Spawner


class Serving(Protocol):
    """The servers that a supervisor starts and keeps alive."""

    async def start(self, notify: Notify, log_dir: Path, /) -> None:
        """Start the servers, and wait until they are healthy.

        Raises:
            ServiceError: if they do not start; the text says what to do.
        """
        ...

    async def watch(self, changed: Callable[[], None]) -> None:
        """Keep the servers alive, and call `changed` whenever the endpoints have changed.

        Raises:
            ServiceError: when they cannot be restarted.
        """
        ...

    def listed(self) -> Sequence[Listed]:
        """Return the current endpoints."""
        ...

    async def stop(self) -> None:
        """Stop the servers. May be called at any time, and twice."""
        ...


class Processes:
    """A fleet of server processes started by a spawner."""

    def __init__(self, group: Group, spawner: Spawner) -> None:
        self._group = group
        self._spawner = spawner

    async def start(self, notify: Notify, log_dir: Path) -> None:
        """Start the processes."""
        await self._group.start(self._spawner, notify, log_dir)

    async def watch(self, changed: Callable[[], None]) -> None:
        """Keep the processes alive."""
        await self._group.watch(changed)

    def listed(self) -> Sequence[Listed]:
        """Return an endpoint for each process."""
        return [
            Listed(
                url=replica.url,
                state=replica.state,
                place=replica.place,
                pid=replica.pid,
                restarts=replica.restarts,
            )
            for replica in self._group.replicas
            if replica.url
        ]

    async def stop(self) -> None:
        """Stop the processes, and close the spawner."""
        await self._group.stop()
        await self._spawner.close()


class FleetSupervisor:
    """The supervisor of one fleet, given its file, the constant fields of its entry, and its servers."""

    def __init__(self, path: Path, entry: Entry, serving: Serving, notify: Notify) -> None:
        self._path = path
        self._entry = msgspec.structs.replace(
            entry, supervisor=this_process(), since=time.time(), state="starting", endpoints=()
        )
        self._serving = serving
        self._notify = notify
        self._changed = asyncio.Event()

    async def run(self, stopped: asyncio.Event) -> None:
        """Serve the fleet until `stopped`, then remove it from the directory.

        Raises:
            ServiceError: if the name is in use, or the fleet did not start or has failed, as its entry says.
        """
        with _locked(self._path):
            assert self._entry.supervisor is not None
            os.environ[SUPERVISOR_MARK] = self._entry.supervisor.mark
            self._write()
            failure = None
            try:
                await self._serve_until(stopped)
            except ServiceError as error:
                failure = error
                self._entry = msgspec.structs.replace(self._entry, state="failed", detail=str(error))
                self._write()
            finally:
                await self._serving.stop()
            if failure is not None:
                self._entry = msgspec.structs.replace(self._entry, ray=None)  # nothing is left on the cluster
                self._write()
                raise failure
            self._path.unlink(missing_ok=True)

    async def _serve_until(self, stopped: asyncio.Event) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._publish())
                group.create_task(self._serve())
                await stopped.wait()
                raise _StopRequested
        except* _StopRequested:
            pass
        except* ServiceError as failed:
            raise first_error(failed) from None

    async def _serve(self) -> None:
        await self._serving.start(self._report, Path(self._entry.log))
        self._entry = msgspec.structs.replace(self._entry, state="up", detail="")
        self._changed.set()
        await self._serving.watch(self._changed.set)

    def _report(self, text: str) -> None:
        """Report a text, and until the fleet is up also publish it in the directory."""
        self._notify(text)
        if self._entry.state == "starting":
            self._entry = msgspec.structs.replace(self._entry, detail=text)
            self._changed.set()

    async def _publish(self) -> None:
        """Write the entry at every change and heartbeat; after a failure, e.g. on a full disk, try again."""
        problem = ""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._changed.wait()
            self._changed.clear()
            try:
                self._write()
            except ServiceError as error:
                if str(error) != problem:
                    problem = str(error)
                    self._notify(problem)

    def _write(self) -> None:
        endpoints = tuple(self._serving.listed())
        self._entry = msgspec.structs.replace(self._entry, endpoints=endpoints, beat=time.time())
        write(self._path, self._entry)


class _StopRequested(Exception):
    """Ends the supervisor's task group."""


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """Hold the lock of a fleet's name; refuse a name that has a supervisor already."""
    lock_path = path.with_name(f".{path.stem}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_path.open("w")
    except OSError as error:
        raise ServiceError(
            f"{lock_path} cannot be written: {error.strerror}; PEERLOOM_FLEETS chooses another directory"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise in_use(path) from error
        with suppress(NoFleet):
            if read(path).life in ("alive", "none"):
                raise in_use(path)
        yield


def in_use(path: Path) -> ServiceError:
    """Return the error for a name that is in use."""
    return ServiceError(
        f"there is a fleet {path.stem} already ({path}): "
        f"`peerloom serve status {path.stem}` shows its state, "
        f"`peerloom serve down {path.stem}` ends it; or choose another name"
    )
