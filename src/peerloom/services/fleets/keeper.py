"""The keeper of a fleet: starts it, keeps it alive, and says in the directory where its endpoints are.

It is a process of its own that nobody waits for. Its servers end with it (`services.children`), and
`serve down` and the next keeper wait until they have. A lock beside the entry makes sure there is one keeper
of a name.
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

from peerloom.errors import ServiceError
from peerloom.services.fleets.directory import (
    BEAT_SECONDS,
    KEEPER_MARK,
    Entry,
    Listed,
    NoFleet,
    read,
    this_process,
    write,
)
from peerloom.services.processes.group import Group
from peerloom.services.processes.replica import first
from peerloom.services.processes.spawn import Spawner

Tell = Callable[[str], None]


class Serving(Protocol):
    """What a keeper keeps."""

    async def start(self, tell: Tell, log_dir: Path) -> None:
        """Start it, and wait until it is well.

        Raises:
            ServiceError: if it does not come up; the text says what to do.
        """
        ...

    async def watch(self, changed: Callable[[], None]) -> None:
        """Keep it alive; `changed` is called whenever its endpoints have.

        Raises:
            ServiceError: when it has died.
        """
        ...

    def listed(self) -> Sequence[Listed]:
        """Its endpoints, as they are now."""
        ...

    async def stop(self) -> None:
        """Stop it. May be called at any time, and twice."""
        ...


class Processes:
    """Server processes, each an endpoint, started by a spawner."""

    def __init__(self, group: Group, spawner: Spawner) -> None:
        self._group = group
        self._spawner = spawner

    async def start(self, tell: Tell, log_dir: Path) -> None:
        """See `Serving`."""
        await self._group.start(self._spawner, tell, log_dir)

    async def watch(self, changed: Callable[[], None]) -> None:
        """See `Serving`."""
        await self._group.watch(changed)

    def listed(self) -> Sequence[Listed]:
        """See `Serving`."""
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
        """See `Serving`."""
        await self._group.stop()
        await self._spawner.close()


class Keeper:
    """Keeps one fleet.

    Args:
        path: the fleet's file.
        entry: what it says beside what changes.
        serving: what is kept.
        tell: hears what happens.
    """

    def __init__(self, path: Path, entry: Entry, serving: Serving, tell: Tell) -> None:
        self._path = path
        self._entry = msgspec.structs.replace(
            entry, keeper=this_process(), since=time.time(), state="starting", endpoints=()
        )
        self._serving = serving
        self._tell = tell
        self._changed = asyncio.Event()

    async def run(self, stopped: asyncio.Event) -> None:
        """Keep the fleet until `stopped`, and take it out of the directory then.

        Raises:
            ServiceError: if the name is in use, or the fleet did not come up or has died; its entry says so.
        """
        with _claimed(self._path):
            assert self._entry.keeper is not None
            os.environ[KEEPER_MARK] = self._entry.keeper.mark
            self._write()
            failure = None
            try:
                await self._until(stopped)
            except ServiceError as error:
                failure = error
                self._entry = msgspec.structs.replace(self._entry, state="failed", detail=str(error))
                self._write()
            finally:
                await self._serving.stop()
            if failure is not None:
                self._entry = msgspec.structs.replace(self._entry, ray=None)  # nothing outlives this there
                self._write()
                raise failure
            self._path.unlink(missing_ok=True)

    async def _until(self, stopped: asyncio.Event) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._beat())
                group.create_task(self._keep())
                await stopped.wait()
                raise _Stopped
        except* _Stopped:
            pass
        except* ServiceError as failed:
            raise first(failed) from None

    async def _keep(self) -> None:
        await self._serving.start(self._say, Path(self._entry.log))
        self._entry = msgspec.structs.replace(self._entry, state="up", detail="")
        self._changed.set()
        await self._serving.watch(self._changed.set)

    def _say(self, text: str) -> None:
        """Tell, and let the directory say it too until the fleet is up."""
        self._tell(text)
        if self._entry.state == "starting":
            self._entry = msgspec.structs.replace(self._entry, detail=text)
            self._changed.set()

    async def _beat(self) -> None:
        """Write at every change and now and then; what cannot be written, on a full disk say, can wait."""
        told = ""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._changed.wait()
            self._changed.clear()
            try:
                self._write()
            except ServiceError as error:
                if str(error) != told:
                    told = str(error)
                    self._tell(told)

    def _write(self) -> None:
        endpoints = tuple(self._serving.listed())
        self._entry = msgspec.structs.replace(self._entry, endpoints=endpoints, beat=time.time())
        write(self._path, self._entry)


class _Stopped(Exception):
    """Ends the keeper's task group."""


@contextmanager
def _claimed(path: Path) -> Generator[None]:
    """Be the one keeper of a name.

    Raises:
        ServiceError: if there is one already.
    """
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
    """What to say of a name that is taken."""
    return ServiceError(
        f"there is a fleet {path.stem} already ({path}): `peerloom serve status {path.stem}` says how it is, "
        f"`peerloom serve down {path.stem}` ends it; or choose another name"
    )
