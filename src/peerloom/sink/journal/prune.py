"""Remove tasks, or everything, from the journal of an inactive run."""

import os
from pathlib import Path

from peerloom.idset import IdSet
from peerloom.sink.errors import SinkError
from peerloom.sink.files import sync_folder, write_failed
from peerloom.sink.journal.walk import Walk
from peerloom.sink.layout import JOURNAL, SegmentName, list_segments


def forget(run_dir: Path, ids: IdSet) -> None:
    """Remove the records of some tasks from the journal. Each segment is replaced atomically.

    Raises:
        DiskFull: if there was no room for the rest of a segment.
        SinkError: if a segment could not be read or written.
    """
    for name in list_segments(run_dir):
        path = name.path(run_dir)
        try:
            _forget(path, ids)
        except OSError as error:
            raise write_failed(path, error) from error
    sync_folder(run_dir / JOURNAL)


def clear(run_dir: Path) -> None:
    """Unlink the files of the journal, and no others.

    Raises:
        SinkError: if a file could not be unlinked.
    """
    for path in (run_dir / JOURNAL).glob("*"):
        if SegmentName.parse(Path(path.name.removeprefix(".").removesuffix(".tmp"))) is None:
            continue
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise SinkError(f"{path} could not be removed: {error.strerror}") from error


def _forget(path: Path, ids: IdSet) -> None:
    data = path.read_bytes()
    if not any(True for _ in Walk(data, ids.__contains__, check=False)):
        return
    rest = [data[record.start : record.end] for record in Walk(data, lambda id: id not in ids)]
    if not rest:
        path.unlink()
        return
    temporary = path.with_name(f".{path.name}.tmp")  # readers ignore it; a leftover file is overwritten
    try:
        with temporary.open("wb") as new:
            new.write(b"".join(rest))
            new.flush()
            os.fdatasync(new.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
