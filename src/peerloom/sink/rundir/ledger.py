"""Record the used part of a run's budget on disk, before more of it is granted.

Each line holds the amounts of finished calls (`used`), and the amounts granted for further calls (`held`):
both count after a crash, so the total is never smaller than the actual usage. Each line survives a crash of
this process; a sync about once a second makes the lines survive a crash of the machine. An incomplete last
line is ignored.
"""

import os
import time
from pathlib import Path

import msgspec

from peerloom.sink.files import write_atomically, write_failed
from peerloom.sink.layout import LEDGER

SYNC_SECONDS = 1.0
MAX_BYTES = 1 << 20  # a larger file is replaced by one with a single line

Amounts = dict[str, float]


class LedgerEntry(msgspec.Struct):
    """Amounts by resource."""

    used: Amounts = {}
    held: Amounts = {}


_decoder = msgspec.json.Decoder(LedgerEntry)
_encoder = msgspec.json.Encoder()


def read_ledger(run_dir: Path) -> LedgerEntry | None:
    """Return the last complete entry of a run's ledger; None if there is none."""
    try:
        lines = (run_dir / LEDGER).read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        if line.endswith(b"\n"):
            try:
                return _decoder.decode(line)
            except msgspec.MsgspecError:
                continue
    return None


class Ledger:
    """The ledger of a run, started with the amounts that earlier sessions have used. Blocks, briefly."""

    def __init__(self, run_dir: Path, earlier: Amounts) -> None:
        self._path = run_dir / LEDGER
        self._path.parent.mkdir(exist_ok=True)
        self._fd = -1
        self._begin(LedgerEntry(used=earlier))

    def note(self, used: Amounts, held: Amounts) -> None:
        """Append an entry with the used and the held amounts.

        Raises:
            DiskFull: if there is no room; nothing more may be granted then.
            SinkError: if it cannot be written.
        """
        line = _encoder.encode(LedgerEntry(used, held)) + b"\n"
        try:
            if self._size + len(line) > MAX_BYTES:
                self._begin(LedgerEntry(used, held))
                return
            written = os.write(self._fd, line)
            if written < len(line):
                os.ftruncate(self._fd, self._size)
                raise OSError(28, "No space left on device")
            self._size += written
            if time.monotonic() - self._synced > SYNC_SECONDS:
                os.fdatasync(self._fd)
                self._synced = time.monotonic()
        except OSError as error:
            self._size = MAX_BYTES  # the file's content is uncertain: the next line starts a new one
            raise write_failed(self._path, error) from error

    def close(self) -> None:
        """Make all entries durable, and close the file."""
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise write_failed(self._path, error) from error
        finally:
            os.close(self._fd)

    def _begin(self, entry: LedgerEntry) -> None:
        line = _encoder.encode(entry) + b"\n"
        write_atomically(self._path, line)
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError as error:
            raise write_failed(self._path, error) from error
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._size = len(line)
        self._synced = time.monotonic()
