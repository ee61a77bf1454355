"""Run a sink, which writes finished rows to its shard in groups.

Rows that arrive during a write form the next group. One thread does all file work of the shard, so an fsync
never blocks the event loop. While the disk is full nothing is acknowledged, so admission stops by itself.
"""

import asyncio
import copy
from concurrent.futures import ThreadPoolExecutor

from peerloom.idset import IdSet
from peerloom.protocol.messages import CommittedQuery, Item, Message
from peerloom.protocol.shard import ShardCommitter
from peerloom.runtime.member.host import Host
from peerloom.runtime.member.spec import MemberSpec, MemberStats
from peerloom.runtime.transport.base import Link
from peerloom.sink.errors import DiskFull
from peerloom.sink.rows import decode
from peerloom.sink.shard import ShardFiles
from peerloom.sink.totals import Totals

DISK_FULL_SECONDS = 1.0


class SinkHost(Host):
    """One sink, for one shard."""

    machine: ShardCommitter

    def __init__(self, spec: MemberSpec, link: Link) -> None:
        super().__init__(ShardCommitter(spec.member.name, IdSet()), spec, link)
        self._shard: ShardFiles | None = None
        self._totals = Totals()  # copied at each commit: the thread owns those of the shard
        self._stuck = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=spec.member.name)

    async def _open(self) -> None:
        member = self._spec.member
        loop = asyncio.get_running_loop()
        shard = await loop.run_in_executor(
            self._thread, ShardFiles.take, self._spec.run_dir, member.index, member.incarnation
        )
        self.machine.committed.merge(shard.committed)
        self._totals = copy.deepcopy(shard.totals)
        self._shard = shard

    async def _close(self) -> None:
        if self._shard is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._shard.close)
            self._totals = self._shard.totals
        self._thread.shutdown(wait=False)

    def _on_message(self, message: Message) -> Message | None:
        if isinstance(message, CommittedQuery):
            reply = self.machine.query(message)
            if reply is not None:
                self.emit(reply)
        return None

    def _process(self) -> None:
        for feeder, ack in self.machine.acks():
            self.spawn(self._send(feeder, ack))
        items = self.machine.group()
        if items:
            self.spawn(self._commit(items))

    async def _commit(self, items: list[Item]) -> None:
        shard = self._shard
        assert shard is not None
        loop = asyncio.get_running_loop()
        while True:
            try:
                self._totals = await loop.run_in_executor(self._thread, _commit, shard, items)
                break
            except DiskFull as error:
                if not self._stuck:
                    self.notice(f"{error} Waiting for room; nothing is lost.")
                    self._stuck = True
                await asyncio.sleep(DISK_FULL_SECONDS)
        if self._stuck:
            self._stuck = False
            self.notice("There is room on the disk again: going on.")
        self.machine.group_committed()
        self.schedule_flush()

    def _fill_stats(self, stats: MemberStats) -> None:
        stats.totals = self._totals
        stats.stuck = self._stuck


def _commit(shard: ShardFiles, items: list[Item]) -> Totals:
    """Make a group durable, and return the new totals of the shard. Runs in the shard's thread."""
    shard.commit([decode(item.payload) for item in items])
    return copy.deepcopy(shard.totals)
