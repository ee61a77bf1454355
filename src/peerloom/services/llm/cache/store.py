"""Store cached replies in a SQLite file.

The file is in WAL mode, so any number of processes can read while one writes. Rows are inserted in order of
time and evicted by least recent use, so evicted rows are adjacent and free whole pages. The size limit
applies to the pages in use, which SQLite counts for all processes; freed pages are reused before the file
grows.
"""

import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

BUSY_SECONDS = 0.5  # to wait for another process that writes

_FORMAT = 1
_LOG_BYTES = 4 << 20
_QUERY_KEYS = 500
_EVICTED_ROWS = 64  # per statement
_EVICTIONS = 256  # statements per transaction, so that other processes do not wait long
_ROW_BYTES = 100  # of a row in addition to its value
_LARGEST_SHARE = 0.25  # the maximum size of a value, as a share of the cache size

_SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, used INTEGER NOT NULL, value BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS replies_used ON replies (used);
"""
_PUT = """
INSERT INTO replies (key, used, value) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET used = excluded.used, value = excluded.value
"""
_EVICT = "DELETE FROM replies WHERE id IN (SELECT id FROM replies ORDER BY used, id LIMIT ?)"


class Store:
    """An open file of cached replies, for one thread. All methods may raise `sqlite3.Error`.

    Args:
        path: the file; created if it does not exist, readable by its owner only.
        size: its maximum size in bytes; the log file takes a few MB more.

    Raises:
        sqlite3.Error: if the file is of another kind or format, damaged or locked.
        OSError: if the file cannot be created.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._size = size
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of the keys that are stored."""
        found: dict[bytes, bytes] = {}
        for start in range(0, len(keys), _QUERY_KEYS):
            batch = keys[start : start + _QUERY_KEYS]
            marks = ",".join("?" * len(batch))
            found.update(self._db.execute(f"SELECT key, value FROM replies WHERE key IN ({marks})", batch))
        return found

    def write(self, entries: Mapping[bytes, bytes], used: Collection[bytes] = ()) -> None:
        """Store entries, update the time of used keys, and evict rows, in one transaction."""
        now = time.time_ns() // 1000
        fits = self._size * _LARGEST_SHARE
        rows = [(key, now, value) for key, value in entries.items() if len(value) <= fits]
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany("UPDATE replies SET used = ? WHERE key = ?", [(now, key) for key in used])
            self._evict(sum(len(value) + _ROW_BYTES for _, _, value in rows))
            self._db.executemany(_PUT, rows)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._shrink()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _prepare(self) -> None:
        # On a file that is not empty these have no effect, or no relevant one.
        self._run(["PRAGMA auto_vacuum=INCREMENTAL", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL"])
        self._run([f"PRAGMA journal_size_limit={_LOG_BYTES}"])
        found = self._number("user_version")
        if found not in (0, _FORMAT):
            raise sqlite3.DatabaseError(f"its format is {found}, this release's is {_FORMAT}")
        if found == 0:
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={_FORMAT}; COMMIT;")

    def _evict(self, size: int) -> None:
        """Evict the least recently used rows until `size` more bytes fit."""
        for _ in range(_EVICTIONS):
            if self._bytes() + size <= self._size:
                return
            if not self._db.execute(_EVICT, (_EVICTED_ROWS,)).rowcount:
                return

    def _shrink(self) -> None:
        """Shrink a file that exceeds its maximum size, as after `size` was lowered."""
        pages = self._number("page_count") - self._size // self._number("page_size")
        if pages > 0:
            self._db.executescript(f"PRAGMA incremental_vacuum({pages})")  # `execute` frees one page only

    def _bytes(self) -> int:
        return (self._number("page_count") - self._number("freelist_count")) * self._number("page_size")

    def _number(self, pragma: str) -> int:
        return int(self._db.execute(f"PRAGMA {pragma}").fetchone()[0])

    def _run(self, statements: Iterable[str]) -> None:
        for statement in statements:
            self._db.execute(statement).fetchall()


def is_busy(error: Exception) -> bool:
    """Return whether the error means that another process locked the file for longer than `BUSY_SECONDS`."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
