"""Write the journal of a member: buffered for milliseconds, and always before a message is sent.

A call gets a record only if its turn is still under way at the next write, because the record of a finished
turn contains the result. An agent with one call per turn thus costs one record per turn. A full disk blocks
outgoing messages and the start of turns, and nothing else.
"""

import asyncio
import platform
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from peerloom.errors import RunDirError
from peerloom.runtime.member.spec import MemberSpec
from peerloom.sink.errors import DiskFull, SinkError
from peerloom.sink.journal.records import base_record, call_record, turn_record
from peerloom.sink.journal.writer import JournalWriter
from peerloom.sink.layout import JOURNAL
from peerloom.task import Header, SavedCall, TaskId

GATHER_SECONDS = 0.005  # records within it share one write; outgoing messages write at once
SYNC_SECONDS = 1.0
DISK_FULL_SECONDS = 1.0


class MemberContext(Protocol):
    """The methods of a member that its journal uses."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a background task."""
        ...

    def schedule_flush(self) -> None:
        """Schedule a flush, which also writes the journal."""
        ...

    def notice(self, text: str) -> None:
        """Add a message for the user."""
        ...


class MemberJournal:
    """The journal of one member, in its event loop."""

    def __init__(self, writer: JournalWriter, member: MemberContext) -> None:
        self.writer = writer
        self._member = member
        self._records: list[bytes] = []
        self._ids: list[TaskId] = []
        self._calls: dict[TaskId, list[tuple[Header, SavedCall]]] = {}
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._unsynced = self._syncing = False
        self._timer: asyncio.TimerHandle | None = None

    def call(self, header: Header, call: SavedCall) -> None:
        """Add an answered call of a turn that is under way."""
        self._calls.setdefault(header.id, []).append((header, call))
        self._flush_soon()

    def turn(self, header: Header, raw_turns: Sequence[msgspec.Raw], hops: int = 1) -> None:
        """Add the turns of `hops` hops; `header` is that of the copy after them."""
        self._calls.pop(header.id, None)
        self._records.append(turn_record(header, raw_turns, hops))
        self._ids.append(header.id)
        self._flush_soon()

    def base(self, header: Header, raw_turns: Sequence[msgspec.Raw], calls: Sequence[SavedCall]) -> None:
        """Add the turns and calls of an earlier attempt, from which a task continues."""
        self._records.append(base_record(header, raw_turns, calls))
        self._ids.append(header.id)

    def flush(self) -> bool:
        """Write the buffered records. Return False if the disk is full: nothing may be sent then."""
        if not self._has_room.is_set():
            return False
        if self._calls:
            self._add_call_records()
        if self._records:
            try:
                self._write()
            except DiskFull as error:
                self._has_room.clear()
                self._member.spawn(self._wait_for_room(error))
                return False
        return True

    def close(self) -> None:
        """Write the buffered records, and close the files."""
        self.flush()
        self.writer.close()

    async def wait_for_room(self) -> None:
        """Wait while the disk is full."""
        await self._has_room.wait()

    @property
    def stuck(self) -> bool:
        """Whether the disk has no room for the buffered records."""
        return not self._has_room.is_set()

    def _flush_soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._member.schedule_flush()

    def _add_call_records(self) -> None:
        for calls in self._calls.values():
            for header, call in calls:
                self._records.append(call_record(header, call))
                self._ids.append(header.id)
        self._calls.clear()

    def _write(self) -> None:
        self.writer.write(self._records, self._ids)
        self._records, self._ids = [], []
        self._unsynced = True
        if not self._syncing:
            self._syncing = True
            self._member.spawn(self._sync())

    async def _wait_for_room(self, error: DiskFull) -> None:
        self._member.notice(f"{error} Waiting for room; nothing is lost.")
        while not self._has_room.is_set():
            await asyncio.sleep(DISK_FULL_SECONDS)
            with suppress(DiskFull):
                self._write()
                self._has_room.set()
        self._member.notice("There is room on the disk again: continuing.")
        self._member.schedule_flush()

    async def _sync(self) -> None:
        """Sync the files while needed. One call at a time: a disk that hangs must not occupy all threads."""
        while self._unsynced:
            await asyncio.sleep(SYNC_SECONDS)
            self._unsynced = False
            try:
                await asyncio.to_thread(self.writer.sync)
            except SinkError as error:
                self._member.notice(f"{error} After a power failure the calls in it would be paid again.")
        self._syncing = False


def open_journal(spec: MemberSpec, member: MemberContext) -> MemberJournal:
    """Open the journal of a member that starts.

    Raises:
        RunDirError: if the run directory is not visible from this host.
    """
    me = spec.member
    if not (spec.run_dir / JOURNAL).is_dir():
        raise RunDirError(
            f"{me.name} on {platform.node()} does not see the run directory {spec.run_dir}: journal=on "
            "needs it on storage that all hosts share. Choose another --run-dir, or journal=off"
        )
    return MemberJournal(JournalWriter(spec.run_dir, me.kind, me.index, me.incarnation), member)
