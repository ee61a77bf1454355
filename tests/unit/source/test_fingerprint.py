import os
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from peerloom.errors import SourceError
from peerloom.source.base import Position, SourceRow
from peerloom.source.fingerprint import file_fingerprint, fingerprint
from peerloom.source.memory import RowsSource
from peerloom.source.open import open_source
from peerloom.source.storage.files import local_file

LINES = b'{"n": 1}\n{"n": 2}\n'


def write(path: Path, content: bytes = LINES) -> Path:
    path.write_bytes(content)
    return path


def test_the_same_content_elsewhere_and_later_is_the_same(tmp_path: Path) -> None:
    here, there = write(tmp_path / "a.jsonl"), write(tmp_path / "b.jsonl")
    os.utime(there, (1, 1))
    assert fingerprint(open_source(here)) == fingerprint(open_source(there))


@pytest.mark.parametrize("content", [LINES + b"\n", LINES.replace(b"2", b"3"), b""])
def test_other_content_is_another_input(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "a.jsonl")
    before = fingerprint(open_source(path))
    assert fingerprint(open_source(write(path, content))) != before


def test_the_order_of_files_counts(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.jsonl"), write(tmp_path / "b.jsonl", b"{}\n")]
    assert fingerprint(open_source(paths)) != fingerprint(open_source(paths[::-1]))


def test_the_label_counts_and_the_limit_is_told_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl")
    plain, limited = fingerprint(open_source(path)), fingerprint(open_source(path, limit=1))
    assert (plain.pop("limit"), limited.pop("limit")) == (None, 1)
    assert plain == limited
    assert fingerprint(open_source(path, key="n"))["key"] == "n"


@pytest.mark.parametrize("at", [0, 500_000, 2_100_000, 3_145_727, -1])
def test_files_are_read_to_their_last_byte(tmp_path: Path, at: int) -> None:
    content = bytearray(3 << 20)
    before = file_fingerprint(local_file(str(write(tmp_path / "a", bytes(content)))))
    content[at] = 1
    assert file_fingerprint(local_file(str(write(tmp_path / "a", bytes(content))))) != before


@pytest.mark.parametrize(("size", "seen"), [(2 << 20, True), ((2 << 20) + 1, False)])
def test_up_to_which_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, seen: bool) -> None:
    monkeypatch.setattr("peerloom.source.fingerprint.WHOLE_BYTES", 2 << 20)
    content = bytearray(size)
    before = file_fingerprint(local_file(str(write(tmp_path / "a", bytes(content)))))
    content[20_000] = 1  # between the first sample and the second
    assert (file_fingerprint(local_file(str(write(tmp_path / "a", bytes(content))))) != before) == seen


def test_of_a_large_file_both_ends_are_read_and_little_else(tmp_path: Path) -> None:
    path, size = tmp_path / "large", 10 << 30
    with path.open("wb") as file:
        file.truncate(size)
    before = file_fingerprint(local_file(str(path)))
    assert before["bytes"] == size
    for at in (0, size - 1, (size - 16 * 1024) // 63 * 7 + 100):
        with path.open("r+b") as file:
            file.seek(at)
            file.write(b"x")
        after = file_fingerprint(local_file(str(path)))
        assert after["digest"] != before["digest"]
        before = after


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    source = open_source(write(tmp_path / "a.jsonl"))
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(SourceError, match=r"a\.jsonl cannot be read any more"):
        fingerprint(source)


def test_rows_in_memory_are_known_by_all_of_them(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"n": 1}, {"n": (2, 3)}, {"n": object()}]
    first, grown = RowsSource(rows, limit=1), RowsSource(rows, limit=2)
    one, two = fingerprint(first), fingerprint(grown)
    assert (one.pop("limit"), two.pop("limit")) == (1, 2)
    assert one == two
    assert fingerprint(RowsSource([{"n": 2}, *rows[1:]])) != fingerprint(RowsSource(rows))
    assert fingerprint(RowsSource(rows[:2])) != fingerprint(RowsSource(rows))


def test_only_the_rows_within_the_limit_travel() -> None:
    source = RowsSource([{"n": "x" * 1_000_000}] * 3 + [{"n": object()}], limit=1)
    assert len(pickle.dumps(source)) < 1_100_000


def test_a_source_of_ones_own_is_known_by_its_description() -> None:
    class Own:
        def rows(self, partition: int, partitions: int) -> Iterator[SourceRow]:
            return iter(())

        def fetch(self, positions: Sequence[Position]) -> list[SourceRow]:
            return []

        def total(self) -> int:
            return 0

        def describe(self) -> dict[str, Any]:
            return {"table": "questions", "path": Path("/x")}

    assert fingerprint(Own()) == {"table": "questions", "path": "/x"}
