"""Keeps a member's part of the journal small: what is kept for finished tasks goes.

A member looks after its own closed segments and those that dead incarnations have left in its place. Now
and then it asks which of their tasks are done; a segment without others is unlinked, one with few is
copied to the end of the journal first. Only feeders know what is done.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from peerloom.runtime.member.journal import MemberJournal
from peerloom.sink.errors import SinkError
from peerloom.task import TaskId

INTERVAL_SECONDS = 5.0
MAX_IDS = 20_000
"""Ids in one question: some hundred kilobytes."""

FindDone = Callable[[list[TaskId]], Awaitable[list[TaskId]]]
"""Which of these tasks are done."""


class JournalCompactor:
    """Tidies up the journal of one member.

    Args:
        journal: the member's.
        places: how many members of its kind there are.
        find_done: the question to the feeders.
    """

    def __init__(self, journal: MemberJournal, places: int, find_done: FindDone) -> None:
        self._journal = journal
        self._places = places
        self._find_done = find_done

    async def run(self) -> None:
        """Tidy up again and again."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            with suppress(SinkError):  # what cannot be copied now can wait
                await self.compact()

    async def compact(self) -> None:
        """Tidy up.

        Raises:
            SinkError: if a copy cannot be written or made durable. Nothing is lost by that.
        """
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
