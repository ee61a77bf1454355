"""The cache's file: SQLite in WAL mode, so that any number of processes read while one writes.

Rows are inserted in order of time and thrown away by least recent use, so what goes lies side by side and
frees whole pages. The bound is on the pages in use, which SQLite counts for all processes; freed ones are
used again before the file grows.
"""

import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

BUSY_SECONDS = 0.5  # to wait for another process that writes

_FORMAT = 1
_LOG_BYTES = 4 << 20
_ASKED = 500  # keys in one query
_THROWN_AWAY = 64  # rows at once
_ROUNDS = 256  # of that in one transaction, so that nobody waits long for it
_ROW_BYTES = 100  # that a row takes beside its value
_LARGEST_SHARE = 0.25  # of the whole size, that one value may have

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
_THROW_AWAY = "DELETE FROM replies WHERE id IN (SELECT id FROM replies ORDER BY used, id LIMIT ?)"


class Store:
    """An open file, for one thread. Whatever SQLite raises comes through, as `sqlite3.Error`.

    Args:
        path: the file; made if it is not there, for its owner's eyes only.
        size: bytes that it may have; its log beside it has a few MB more.

    Raises:
        sqlite3.Error: if it is no such file, damaged, locked, or of another release's format.
        OSError: if it cannot be made.
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
        """The values of those keys that are there."""
        found: dict[bytes, bytes] = {}
        for start in range(0, len(keys), _ASKED):
            some = keys[start : start + _ASKED]
            marks = ",".join("?" * len(some))
            found.update(self._db.execute(f"SELECT key, value FROM replies WHERE key IN ({marks})", some))
        return found

    def write(self, entries: Mapping[bytes, bytes], used: Collection[bytes] = ()) -> None:
        """Keep entries, note which keys were used, and throw away what is too much; all of it or nothing."""
        now = time.time_ns() // 1000
        fits = self._size * _LARGEST_SHARE
        rows = [(key, now, value) for key, value in entries.items() if len(value) <= fits]
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany("UPDATE replies SET used = ? WHERE key = ?", [(now, key) for key in used])
            self._make_room(sum(len(value) + _ROW_BYTES for _, _, value in rows))
            self._db.executemany(_PUT, rows)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._give_back()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _prepare(self) -> None:
        # Each has an effect only on a file that is still empty, or none that matters here.
        self._run(["PRAGMA auto_vacuum=INCREMENTAL", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL"])
        self._run([f"PRAGMA journal_size_limit={_LOG_BYTES}"])
        found = self._number("user_version")
        if found not in (0, _FORMAT):
            raise sqlite3.DatabaseError(f"its format is {found}, this release's is {_FORMAT}")
        if found == 0:
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={_FORMAT}; COMMIT;")

    def _make_room(self, room: int) -> None:
        """Throw away what was not used for longest, until so many bytes more would fit."""
        for _ in range(_ROUNDS):
            if self._bytes() + room <= self._size:
                return
            if not self._db.execute(_THROW_AWAY, (_THROWN_AWAY,)).rowcount:
                return

    def _give_back(self) -> None:
        """Make a file smaller that has more pages than it may, as after `size` was lowered."""
        pages = self._number("page_count") - self._size // self._number("page_size")
        if pages > 0:
            self._db.executescript(f"PRAGMA incremental_vacuum({pages})")  # `execute` does one page only

    def _bytes(self) -> int:
        return (self._number("page_count") - self._number("freelist_count")) * self._number("page_size")

    def _number(self, pragma: str) -> int:
        return int(self._db.execute(f"PRAGMA {pragma}").fetchone()[0])

    def _run(self, statements: Iterable[str]) -> None:
        for statement in statements:
            self._db.execute(statement).fetchall()


def is_busy(error: Exception) -> bool:
    """Whether another process only was in the way for longer than `BUSY_SECONDS`."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
