"""Taking tasks out of a journal, or all of it."""

import errno
import os
from pathlib import Path

import pytest
from journal_helpers import known, put_turns, segments, task

from peerloom.idset import IdSet
from peerloom.sink.errors import DiskFull
from peerloom.sink.journal.prune import clear, forget
from peerloom.sink.journal.writer import JournalWriter
from peerloom.sink.layout import SegmentName


@pytest.fixture
def journal(run_dir: Path) -> Path:
    """Rows 0 to 2 in one segment, 3 to 5 in another, of one member; 6 and 7 in one of another."""
    for index, numbers in enumerate([range(3), range(3, 6), range(6, 8)]):
        writer = JournalWriter(run_dir, "peer", index, 1)
        put_turns(writer, numbers)
        writer.close()
    return run_dir


def test_what_is_forgotten_is_gone_and_the_rest_stays(journal: Path):
    before = {name: (journal / ".peerloom/journal" / name).stat().st_ino for name in segments(journal)}
    forget(journal, IdSet(map(task, [1, 6, 7, 50])))
    assert sorted(known(journal)) == [0, 2, 3, 4, 5]
    assert segments(journal) == list(before)[:2]
    untouched = SegmentName("peer", 1, 1, 0).path(journal)
    assert untouched.stat().st_ino == before[untouched.name]


def test_damage_is_forgotten_with_it(journal: Path):
    path = SegmentName("peer", 0, 1, 0).path(journal)
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    forget(journal, IdSet([task(0)]))
    assert len(path.read_bytes()) * 3 == len(data)
    assert sorted(known(journal)) == [1, 3, 4, 5, 6, 7]


def test_a_full_disk_leaves_a_segment_as_it_was(journal: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskFull, match=r"peer-000-0001-0000\.jnl"):
            forget(journal, IdSet([task(0)]))
    assert sorted(known(journal)) == list(range(8))
    assert len(segments(journal)) == 3


def test_clear_leaves_nothing(journal: Path):
    (journal / ".peerloom/journal" / ".peer-000-0001-0000.jnl.tmp").write_bytes(b"left by a kill")
    (journal / ".peerloom/journal" / "notes.txt").write_text("a user's")
    clear(journal)
    assert [path.name for path in (journal / ".peerloom/journal").iterdir()] == ["notes.txt"]
    clear(journal)
