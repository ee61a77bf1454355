"""Compact the journal: remove the records of finished tasks.

A member compacts its own closed segments, and those of dead incarnations in its slot. It periodically asks
the feeders which of their tasks are done. A segment without unfinished tasks is unlinked; one with few is
first copied to the end of the journal.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from peerloom.runtime.member.journal import MemberJournal
from peerloom.sink.errors import SinkError
from peerloom.task import TaskId

INTERVAL_SECONDS = 5.0
MAX_IDS = 20_000
"""Ids in one query, which is then some hundred kilobytes long."""

FindDone = Callable[[list[TaskId]], Awaitable[list[TaskId]]]
"""Returns which of the given tasks are done."""


class JournalCompactor:
    """Compacts the journal of one member; `places` is the number of members of its kind."""

    def __init__(self, journal: MemberJournal, places: int, find_done: FindDone) -> None:
        self._journal = journal
        self._places = places
        self._find_done = find_done

    async def run(self) -> None:
        """Compact the journal periodically."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            with suppress(SinkError):  # retried in the next round
                await self.compact()

    async def compact(self) -> None:
        """Compact the journal once. A segment is kept if its copy cannot be written, with a `SinkError`."""
        writer = self._journal.writer
        writer.adopt(await asyncio.to_thread(writer.orphans, self._places))
        ids = writer.closed_ids(MAX_IDS)
        if ids:
            writer.settle(await self._find_done(ids))
        while not self._journal.stuck and (copying := writer.begin_copy()) is not None:
            await asyncio.to_thread(copying.read)
            writer.write_copy(copying)
            await asyncio.to_thread(writer.sync)
            if not writer.end_copy(copying):
                return
