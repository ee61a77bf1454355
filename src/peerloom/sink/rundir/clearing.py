"""Clear a run directory, and refuse one with unknown files.

Only files with Peerloom's names are ever removed from a directory, and none if there are other files.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from peerloom.errors import RunDirError
from peerloom.sink.layout import DATA, FOLDERS, INDEX, JOURNAL, LOCKS, LOGS, REJECTED, RUN_LOCK
from peerloom.sink.lock import revoke

ANOTHER = "choose another run directory (--run-dir, or run_dir= in Python)"
"""The advice for a directory that cannot be used."""

_FILE_NAMES = {
    "": re.compile(
        r"run\.lock|\.?(run\.yaml|state\.json|log\.jsonl|summary\.json|control\.json|input\.pos|ledger)(\.tmp)?"
        r"|(data|rejected)\.parquet|\.(data|rejected)\.parquet\.\d+\.tmp"
    ),
    DATA: re.compile(r"\.?part-\d{3,}-\d{4,}-\d{4,}\.jsonl(\.tmp)?"),
    REJECTED: re.compile(r"\.?part-\d{3,}-\d{4,}-\d{4,}\.jsonl(\.tmp)?"),
    INDEX: re.compile(r"\.?part-\d{3,}-\d{4,}-\d{4,}\.idx(\.tmp)?"),
    LOCKS: re.compile(r"shard-\d{3,}\.lock"),
    JOURNAL: re.compile(r"\.?(peer|feeder|alone)-\d{3,}-\d{4,}-\d{4,}\.jnl(\.tmp)?"),
    LOGS: re.compile(r"[^.].*\.(log|jsonl)"),
}


def clear(directory: Path) -> None:
    """Remove a run, whose processes may still be writing.

    Raises:
        RunDirError: if a file is not one of Peerloom's; nothing is removed then.
        OSError: if something cannot be removed.
    """
    refuse_foreign(directory)
    for path in (directory / LOCKS).glob("shard-*.lock"):
        revoke(path)  # before any removal, so that no process creates a new file afterwards
    for path in _entries(directory):
        if path.name != RUN_LOCK:
            path.unlink()


def _entries(directory: Path) -> Iterator[Path]:
    """Yield the entries of the directory and of Peerloom's folders in it."""
    for path in sorted(directory.iterdir()):
        if path.name in FOLDERS and path.is_dir():
            yield from sorted(inner for inner in path.iterdir() if not is_leftover(inner))
        elif not is_leftover(path):
            yield path


def is_leftover(path: Path) -> bool:
    """Return whether this is NFS's name for a removed file that some process still has open."""
    return path.name.startswith(".nfs")


def refuse_foreign(directory: Path) -> None:
    """Raise `RunDirError` if the directory holds a file that is not one of Peerloom's."""
    for path in _entries(directory):
        folder = "" if path.parent == directory else path.parent.name
        if not _FILE_NAMES[folder].fullmatch(path.name) or not path.is_file():
            raise RunDirError(
                f"{directory} holds {path.relative_to(directory)}, which is not Peerloom's: "
                f"move it away, or {ANOTHER}"
            )
