"""The thread that keeps the cache's file away from the event loop.

What is asked while it works is answered by one query, what is kept meanwhile written in one transaction. It
never fails anybody: when the file cannot be used it says so once, answers that nothing is there, and tries
again now and then.
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

AGAIN_SECONDS = 30.0  # between two tries of a file that cannot be used

_SOON_SECONDS = 0.5  # until writes are tried again for which the file was busy
_USED = 512  # keys whose use is written without anything else to write
_MOST_WAITING = 64 << 20  # bytes that wait to be written; what is more is not kept

Asked = tuple[bytes, "asyncio.Future[bytes | None]"]
Kept = tuple[bytes, bytes]


class CacheThread:
    """Of one client, in its event loop.

    Args:
        path: the cache's file.
        size: bytes that it may have.
        tell: called, from the event loop, with what a person should know.
        clock: seconds.
    """

    def __init__(
        self, path: Path, size: int, tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._size = size
        self._tell = tell
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._desk: queue.SimpleQueue[Asked | Kept | None] = queue.SimpleQueue()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="peerloom-cache", daemon=True)
        # What follows belongs to the thread.
        self._store: Store | None = None
        self._closed_until = 0.0
        self._told = False
        self._entries: dict[bytes, bytes] = {}
        self._waiting = 0
        self._used: set[bytes] = set()
        self._compress = zstandard.ZstdCompressor(3, write_checksum=True).compress
        self._inflate = zstandard.ZstdDecompressor().decompress

    async def get(self, key: bytes) -> bytes | None:
        """The value of a key, if it is there."""
        if not self._thread.is_alive():
            if self._ended.done():
                return None
            self._thread.start()
        answer: asyncio.Future[bytes | None] = self._loop.create_future()
        self._desk.put((key, answer))
        return await answer

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value, soon."""
        if not self._thread.is_alive() and not self._ended.done():
            self._thread.start()
        self._desk.put((key, value))

    async def close(self) -> None:
        """Write what is left, and end the thread."""
        if self._thread.is_alive():
            self._desk.put(None)
            await self._ended

    def _run(self) -> None:
        going = True
        while going:
            batch = self._batch()
            going = None not in batch
            asked: list[Asked] = []
            for item in batch:
                if item is None:
                    continue
                key, other = item
                if isinstance(other, bytes):
                    self._keep(key, other)
                else:
                    asked.append((key, other))
            if asked:
                self._answer(asked)
            if self._entries or len(self._used) >= _USED or (self._used and not going):
                self._write()
        if self._store is not None:
            self._store.close()
        self._call(self._end)

    def _batch(self) -> list[Asked | Kept | None]:
        """All that has come, at least one thing; nothing if writes have waited long enough."""
        batch: list[Asked | Kept | None] = []
        with suppress(queue.Empty):
            batch.append(self._desk.get(timeout=_SOON_SECONDS if self._entries else None))
            while True:
                batch.append(self._desk.get_nowait())
        return batch

    def _keep(self, key: bytes, value: bytes) -> None:
        packed = self._compress(value)
        if self._waiting + len(packed) <= _MOST_WAITING:
            self._waiting += len(packed)
            self._entries[key] = packed

    def _answer(self, asked: list[Asked]) -> None:
        keys = list(dict.fromkeys(key for key, _ in asked))
        found: dict[bytes, bytes] = {}
        try:
            store = self._open()
            if store is not None:
                for key, packed in {**store.get(keys), **self._not_written(keys)}.items():
                    with suppress(zstandard.ZstdError):  # damaged: it will be replaced
                        found[key] = self._inflate(packed)
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
        self._used.update(found)
        self._call(_hand_out, [(answer, found.get(key)) for key, answer in asked])

    def _not_written(self, keys: list[bytes]) -> dict[bytes, bytes]:
        return {key: self._entries[key] for key in keys if key in self._entries}

    def _write(self) -> None:
        try:
            store = self._open()
            if store is not None:
                store.write(self._entries, self._used)
        except (sqlite3.Error, OSError) as error:
            if is_busy(error) and self._store is not None:
                return  # tried again with the next ones
            self._give_up(error)
        self._entries, self._waiting = {}, 0
        self._used = set()

    def _open(self) -> Store | None:
        if self._store is None and self._clock() >= self._closed_until:
            self._store = Store(self._path, self._size)
        return self._store

    def _give_up(self, error: Exception) -> None:
        """Do without the file for a while."""
        if self._store is not None:
            self._store.close()
            self._store = None
        self._closed_until = self._clock() + AGAIN_SECONDS
        if not self._told:
            self._told = True
            text = f"the cache {self._path} cannot be used ({error}): calls go on without it"
            self._call(self._tell, f"{text}. If it is damaged, remove it")

    def _call(self, what: Callable[..., None], *args: object) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it whoever asked
            self._loop.call_soon_threadsafe(what, *args)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)


def _hand_out(answers: list[tuple["asyncio.Future[bytes | None]", bytes | None]]) -> None:
    for answer, value in answers:
        if not answer.done():
            answer.set_result(value)
