"""Keeps a member's part of the journal small: what is kept for finished tasks goes.

A member looks after its own closed segments and those that dead incarnations have left in its place. Now
and then it asks which of their tasks are done; a segment without others is unlinked, one with few is
copied to the end of the journal first. Only feeders know what is done.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from peerloom.protocol.view import View
from peerloom.runtime.journaling import Journaling
from peerloom.sink.errors import SinkError
from peerloom.sink.layout import SegmentName
from peerloom.task import TaskId

TIDY_SECONDS = 5.0
MOST_ASKED = 20_000
"""Ids in one question: some hundred kilobytes."""

Ask = Callable[[list[TaskId]], Awaitable[list[TaskId]]]
"""Which of these tasks are done."""


class Tidying:
    """Tidies up the journal of one member.

    Args:
        journal: the member's.
        places: how many members of its kind there are.
        view: the view that the member is in.
        ask: the question to the feeders.
    """

    def __init__(self, journal: Journaling, places: int, view: Callable[[], View], ask: Ask) -> None:
        self._journal = journal
        self._places = places
        self._view = view
        self._ask = ask

    async def run(self) -> None:
        """Tidy up again and again."""
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            with suppress(SinkError):  # a segment that cannot be read or copied now can wait
                await self.once()

    async def once(self) -> None:
        """Tidy up.

        Raises:
            SinkError: if a segment cannot be read, or there is no room for a copy. Nothing is lost by that.
        """
        writer = self._journal.writer
        writer.adopt(await asyncio.to_thread(writer.orphans, self._places, self._is_alive))
        ids = writer.closed_ids(MOST_ASKED)
        if ids:
            writer.settle(await self._ask(ids))
        copying = None if self._journal.stuck else writer.begin_copy()
        if copying is not None:
            await asyncio.to_thread(copying.read)
            writer.write_copy(copying)
            await asyncio.to_thread(writer.sync)
            writer.end_copy(copying)

    def _is_alive(self, name: SegmentName) -> bool:
        return f"{name.kind}-{name.slot}.{name.incarnation}" in self._view().names
