"""Read and write the cache's file in a thread, so that the event loop does not block.

Requests that arrive while the thread works are batched: reads into one query, writes into one transaction.
Calls never fail: while the file cannot be used, reads find nothing and writes are dropped; the user is
notified once, and the file is opened again periodically.
"""

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import zstandard

from peerloom.services.llm.cache.store import Store, is_busy

AGAIN_SECONDS = 30.0  # between two attempts to open a file that cannot be used

_RETRY_SECONDS = 0.5  # until writes are retried after the file was busy
_USED = 512  # used keys from which they are written without entries
_MAX_PENDING = 64 << 20  # bytes that wait to be written; more are dropped

Read = tuple[bytes, "asyncio.Future[bytes | None]"]
Write = tuple[bytes, bytes]


class CacheThread:
    """The cache's thread, for one client in its event loop.

    Args:
        path: the cache's file.
        size: its maximum size in bytes.
        notify: called in the event loop with notices for the user.
        clock: returns seconds.
    """

    def __init__(
        self,
        path: Path,
        size: int,
        notify: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._size = size
        self._notify = notify
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Read | Write | None] = queue.SimpleQueue()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="peerloom-cache", daemon=True)
        # The attributes below are used by the thread only.
        self._store: Store | None = None
        self._closed_until = 0.0
        self._notified = False
        self._entries: dict[bytes, bytes] = {}
        self._pending = 0  # bytes in the entries
        self._used: set[bytes] = set()
        self._compress = zstandard.ZstdCompressor(3, write_checksum=True).compress
        self._decompress = zstandard.ZstdDecompressor().decompress

    async def get(self, key: bytes) -> bytes | None:
        """Return the value of a key; None if it is not stored."""
        if not self._thread.is_alive():
            if self._ended.done():
                return None
            self._thread.start()
        answer: asyncio.Future[bytes | None] = self._loop.create_future()
        self._queue.put((key, answer))
        return await answer

    def put(self, key: bytes, value: bytes) -> None:
        """Store a value, eventually."""
        if not self._thread.is_alive() and not self._ended.done():
            self._thread.start()
        self._queue.put((key, value))

    async def close(self) -> None:
        """Write pending entries, and end the thread."""
        if self._thread.is_alive():
            self._queue.put(None)
            await self._ended

    def _run(self) -> None:
        running = True
        while running:
            batch = self._batch()
            running = None not in batch
            reads: list[Read] = []
            for item in batch:
                if item is None:
                    continue
                key, other = item
                if isinstance(other, bytes):
                    self._add(key, other)
                else:
                    reads.append((key, other))
            if reads:
                self._answer(reads)
            if self._entries or len(self._used) >= _USED or (self._used and not running):
                self._write()
        if self._store is not None:
            self._store.close()
        self._call(self._end)

    def _batch(self) -> list[Read | Write | None]:
        """Wait for a request, and return all queued ones; none when writes are to be retried."""
        batch: list[Read | Write | None] = []
        with suppress(queue.Empty):
            batch.append(self._queue.get(timeout=_RETRY_SECONDS if self._entries else None))
            while True:
                batch.append(self._queue.get_nowait())
        return batch

    def _add(self, key: bytes, value: bytes) -> None:
        compressed = self._compress(value)
        if self._pending + len(compressed) <= _MAX_PENDING:
            self._pending += len(compressed)
            self._entries[key] = compressed

    def _answer(self, reads: list[Read]) -> None:
        keys = list(dict.fromkeys(key for key, _ in reads))
        found: dict[bytes, bytes] = {}
        try:
            store = self._open()
            if store is not None:
                pending = {key: self._entries[key] for key in keys if key in self._entries}
                for key, compressed in {**store.get(keys), **pending}.items():
                    with suppress(zstandard.ZstdError):  # damaged: it will be replaced
                        found[key] = self._decompress(compressed)
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
        self._used.update(found)
        self._call(_set_results, [(answer, found.get(key)) for key, answer in reads])

    def _write(self) -> None:
        try:
            store = self._open()
            if store is not None:
                store.write(self._entries, self._used)
        except (sqlite3.Error, OSError) as error:
            if is_busy(error) and self._store is not None:
                return  # retried with the next entries
            self._give_up(error)
        self._entries, self._pending = {}, 0
        self._used = set()

    def _open(self) -> Store | None:
        if self._store is None and self._clock() >= self._closed_until:
            self._store = Store(self._path, self._size)
        return self._store

    def _give_up(self, error: Exception) -> None:
        """Close the file for a while, and notify the user the first time."""
        if self._store is not None:
            self._store.close()
            self._store = None
        self._closed_until = self._clock() + AGAIN_SECONDS
        if not self._notified:
            self._notified = True
            text = f"the cache {self._path} cannot be used ({error}): calls go on without it"
            self._call(self._notify, f"{text}. If it is damaged, remove it")

    def _call(self, callback: Callable[..., None], *args: object) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it the callers
            self._loop.call_soon_threadsafe(callback, *args)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)


def _set_results(answers: list[tuple["asyncio.Future[bytes | None]", bytes | None]]) -> None:
    for answer, value in answers:
        if not answer.done():
            answer.set_result(value)
