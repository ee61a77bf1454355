"""Clear a run directory, and refuse one with unknown files.

Only files with Peerloom's names are ever removed from a directory, and none if there are other files.
"""

from collections.abc import Iterator
from pathlib import Path

from peerloom.errors import RunDirError
from peerloom.sink.layout import FOLDERS, LOCKS, README, RUN_LOCK, STATE, is_known
from peerloom.sink.lock import revoke
from peerloom.sink.rundir.card import is_card

ANOTHER = "choose another run directory (--run-dir, or run_dir= in Python)"
"""The advice for a directory that cannot be used."""


def clear(directory: Path) -> None:
    """Remove a run, whose processes may still be writing."""
    refuse_foreign(directory)
    for path in (directory / LOCKS).glob("shard-*.lock"):
        revoke(path)  # before any removal, so that no process creates a new file afterwards
    for path in _entries(directory):
        if path != directory / RUN_LOCK:
            path.unlink()


def _entries(directory: Path) -> Iterator[Path]:
    """Yield the entries of the directory and of Peerloom's folders in it, those of `.peerloom` last."""
    folders = [directory / folder for folder in FOLDERS if (directory / folder).is_dir()]
    for folder in (directory, *reversed(folders)):
        yield from sorted(path for path in folder.iterdir() if path not in folders and not is_leftover(path))


def is_leftover(path: Path) -> bool:
    """Return whether this is NFS's name for a removed file that some process still has open."""
    return path.name.startswith(".nfs")


def refuse_foreign(directory: Path) -> None:
    """Raise `RunDirError` if the directory holds a file that is not one of Peerloom's."""
    is_run = (directory / STATE).exists()
    for path in _entries(directory):
        folder = "" if path.parent == directory else str(path.parent.relative_to(directory))
        known = is_known(folder, path.name, is_run=is_run) or (path == directory / README and is_card(path))
        if not known or not path.is_file():
            raise RunDirError(
                f"{directory} holds {path.relative_to(directory)}, which is not Peerloom's: "
                f"move it away, or {ANOTHER}"
            )
