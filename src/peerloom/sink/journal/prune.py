"""Taking tasks, or everything, out of the journal of a run that nobody is working on."""

import os
from pathlib import Path

from peerloom.idset import IdSet
from peerloom.sink.errors import SinkError
from peerloom.sink.files import sync_folder, write_failed
from peerloom.sink.journal.walk import Walk
from peerloom.sink.layout import JOURNAL, SegmentName, list_segments


def forget(run_dir: Path, ids: IdSet) -> None:
    """Take the records of some tasks out of the journal. Each segment is replaced at once or not at all.

    Raises:
        DiskFull: if there was no room for what is left of a segment.
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
    """Unlink the whole journal, and nothing that is not the journal's.

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
    kept = [data[record.start : record.end] for record in Walk(data, lambda id: id not in ids)]
    if not kept:
        path.unlink()
        return
    temporary = path.with_name(
        f".{path.name}.tmp"
    )  # no name of a segment; one left by a kill is written over
    try:
        with temporary.open("wb") as new:
            new.write(b"".join(kept))
            new.flush()
            os.fdatasync(new.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
