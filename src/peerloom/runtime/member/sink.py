"""Run a sink, which writes finished rows to its shard in groups.

Rows that arrive during a write form the next group. One thread does all file work of the shard, so an fsync
never blocks the event loop. While the disk is full nothing is acknowledged, so admission stops by itself.
"""

import asyncio
import copy
from collections.abc import AsyncGenerator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import cast

from peerloom.idset import IdSet
from peerloom.protocol.messages import CommittedQuery, Item, Message
from peerloom.protocol.shard import ShardCommitter
from peerloom.runtime.member.events import MemberStats
from peerloom.runtime.member.runtime import MemberRuntime
from peerloom.sink.errors import DiskFull
from peerloom.sink.rows import decode
from peerloom.sink.shard import ShardFiles
from peerloom.sink.totals import Totals

DISK_FULL_SECONDS = 1.0


@asynccontextmanager
async def open_sink(member: MemberRuntime) -> "AsyncGenerator[SinkWork]":
    """Take over the shard of a sink, and close it at the end."""
    me, thread = member.spec.member, ThreadPoolExecutor(1, thread_name_prefix=member.name)
    run_in_executor = asyncio.get_running_loop().run_in_executor
    try:
        take = ShardFiles.take
        shard = await run_in_executor(thread, take, member.spec.run_dir, me.index, me.incarnation)
        work = SinkWork(member, shard, thread)
        try:
            yield work
        finally:
            await run_in_executor(thread, shard.close)
            work.totals = shard.totals
    finally:
        thread.shutdown(wait=False)


class SinkWork:
    """Writes the rows of one shard.

    Attributes:
        totals: those of the last commit; a copy, since the thread owns those of the shard.
    """

    def __init__(self, member: MemberRuntime, shard: ShardFiles, thread: ThreadPoolExecutor) -> None:
        committed = IdSet()
        committed.merge(shard.committed)
        self.machine = ShardCommitter(member.name, committed)
        self.totals = copy.deepcopy(shard.totals)
        self._member = member
        self._shard = shard
        self._thread = thread
        self._stuck = False

    def on_message(self, message: Message) -> Message | None:
        """See `MemberWork`."""
        if isinstance(message, CommittedQuery):
            reply = self.machine.query(message)
            if reply is not None:
                self._member.emit(reply)
        return None

    def process(self) -> None:
        """See `MemberWork`."""
        items = self.machine.group()
        if items:
            self._member.spawn(self._commit(items))

    def messages(self) -> Iterable[tuple[str, Message]]:
        """Return the acknowledgements of durable rows."""
        return self.machine.acks()

    def stats(self) -> MemberStats:
        """See `MemberWork`."""
        return MemberStats(totals=self.totals, stuck=self._stuck)

    async def _commit(self, items: list[Item]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                self.totals = await loop.run_in_executor(self._thread, _commit, self._shard, items)
                break
            except DiskFull as error:
                if not self._stuck:
                    self._member.notice(f"{error} Waiting for room; nothing is lost.")
                    self._stuck = True
                await asyncio.sleep(DISK_FULL_SECONDS)
        if self._stuck:
            self._stuck = False
            self._member.notice("There is room on the disk again: continuing.")
        self.machine.group_committed()
        self._member.schedule_flush()


def _commit(shard: ShardFiles, items: list[Item]) -> Totals:
    """Make a group durable, and return the new totals of the shard. Runs in the shard's thread."""
    shard.commit([decode(cast("bytes", item.payload)) for item in items])
    return copy.deepcopy(shard.totals)
