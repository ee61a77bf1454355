"""Remove tasks, or everything, from the journal of an inactive run."""

from pathlib import Path

from peerloom.idset import IdSet
from peerloom.sink.errors import SinkError
from peerloom.sink.files import sync_folder, write_atomically, write_failed
from peerloom.sink.journal.walk import Walk
from peerloom.sink.layout import JOURNAL, is_known, list_segments


def forget(run_dir: Path, ids: IdSet) -> None:
    """Remove the records of some tasks from the journal. Each segment is replaced atomically."""
    for name in list_segments(run_dir):
        path = name.path(run_dir)
        try:
            data = path.read_bytes()
            if not any(True for _ in Walk(data, ids.__contains__)):
                continue
            rest = [data[record.start : record.end] for record in Walk(data, lambda id: id not in ids)]
            if rest:
                write_atomically(path, b"".join(rest))
            else:
                path.unlink()
        except OSError as error:
            raise write_failed(path, error) from error
    sync_folder(run_dir / JOURNAL)


def clear(run_dir: Path) -> None:
    """Unlink the files of the journal, and no others."""
    for path in (run_dir / JOURNAL).glob("*"):
        if is_known(JOURNAL, path.name):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise SinkError(f"{path} could not be removed: {error.strerror}") from error
