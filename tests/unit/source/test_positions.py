import errno
import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from peerloom.errors import SourceError
from peerloom.source.base import Source, SourceRow
from peerloom.source.combined import PartsSource
from peerloom.source.open import open_source
from peerloom.source.positions import Positioned, Positions
from peerloom.source.sample import SampledSource


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def some_files(folder: Path, seed: int) -> list[str]:
    """Files of rows and blank lines of many lengths, some empty, some without a last newline."""
    dice = random.Random(seed)
    paths: list[str] = []
    for index in range(dice.randrange(1, 5)):
        lines: list[bytes] = []
        for number in range(dice.choice([0, 1, 2, 30])):
            row = json.dumps({"n": number, "fill": "x" * dice.choice([0, 5, 300])}).encode()
            lines.append(dice.choice([row, row, row, b"", b"  ", b"\r"]))
        data = b"\n".join(lines) + dice.choice([b"", b"\n", b"\n\n \n"])
        paths.append(write(folder / f"{index}.jsonl", data))
    return paths


def rows_by(positions: Positions, source: PartsSource) -> list[SourceRow]:
    """All rows that the positions name, as the source fetches them."""
    found = [
        (file, row, *positions.find(file, row))
        for file, lines in enumerate(positions.lines)
        for row in range(lines)
    ]
    return source.fetch([(file, row, offset) for file, row, offset, length in found if length])


def opened(source: PartsSource, path: Path) -> Positions:
    positions = source.positions(path)
    assert positions is not None
    return positions


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """From when it is asked for, lines are not to be read from the beginning."""

    def refuse(*_: object) -> None:
        raise AssertionError("the input was read through")

    with monkeypatch.context() as patch:
        patch.setattr("peerloom.source.parts.json_lines.read_lines", refuse)
        yield patch


@pytest.mark.parametrize("seed", range(40))
def test_positions_name_the_rows_that_reading_gives(tmp_path: Path, seed: int):
    limit = random.Random(seed).choice([None, None, 0, 1, 20])
    source = open_source(some_files(tmp_path, seed), limit=limit)
    read = list(source.rows(0, 1))
    assert source.index(tmp_path / "input.pos") == len(read)
    positions = opened(source, tmp_path / "input.pos")
    assert positions.total == len(read)
    assert rows_by(positions, source) == read


def test_lengths_are_those_of_the_rows(tmp_path: Path):
    source = open_source(write(tmp_path / "q.jsonl", b'{"n": 0}\n\n\n{"n": 333}'))
    source.index(tmp_path / "input.pos")
    positions = opened(source, tmp_path / "input.pos")
    assert [positions.find(0, row) for row in range(4)] == [(0, 11), (11, 0), (11, 0), (11, 11)]


def test_many_rows_are_written_in_pieces(tmp_path: Path):
    data = b"".join(b'{"n": %d}\n' % number for number in range(20_000)) + b"\n" * 10_000 + b'{"n": 1}\n'
    source = open_source(write(tmp_path / "q.jsonl", data))
    assert source.index(tmp_path / "input.pos") == 20_001
    assert (tmp_path / "input.pos").stat().st_size < 8 * 30_002 + 100
    assert rows_by(opened(source, tmp_path / "input.pos"), source) == list(source.rows(0, 1))


def test_the_second_count_reads_nothing(tmp_path: Path, request: pytest.FixtureRequest):
    source = open_source(some_files(tmp_path, 3))
    total = source.index(tmp_path / "input.pos")
    request.getfixturevalue("no_reading")
    assert source.index(tmp_path / "input.pos") == total


@pytest.mark.parametrize("change", ["longer", "another file", "limit"])
def test_positions_hold_for_their_input_only(tmp_path: Path, change: str):
    path = write(tmp_path / "q.jsonl", b'{"n": 0}\n{"n": 1}\n')
    open_source(path).index(tmp_path / "input.pos")
    other = open_source(path, limit=1)
    if change != "limit":
        more = write(tmp_path / ("q.jsonl" if change == "longer" else "r.jsonl"), b'{"n": 0}\n' * 3)
        other = open_source([path] if change == "longer" else [path, more])
    assert other.positions(tmp_path / "input.pos") is None
    assert other.index(tmp_path / "input.pos") == {"longer": 3, "another file": 5, "limit": 1}[change]
    assert rows_by(opened(other, tmp_path / "input.pos"), other) == list(other.rows(0, 1))


def test_cut_or_damaged_anywhere_they_are_as_good_as_none(tmp_path: Path):
    source = open_source([write(tmp_path / f"{name}.jsonl", b'{"n": 0}\n\n{"n": 1}\n') for name in "ab"])
    path = tmp_path / "input.pos"
    source.index(path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert source.positions(path) is None
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        assert source.positions(path) is None
    path.write_bytes(bytes(len(whole)))
    assert source.index(path) == 4
    assert path.read_bytes() == whole


def test_a_count_that_breaks_off_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    paths = [write(tmp_path / f"{name}.jsonl", b'{"n": 0}\n') for name in "ab"]
    source = open_source(paths)
    (tmp_path / "b.jsonl").unlink()
    with pytest.raises(SourceError, match="cannot be read any more"):
        source.index(tmp_path / "input.pos")
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl"}


@pytest.mark.parametrize("failing", ["open", "write", "flush", "fdatasync"])
def test_no_room_for_positions_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str):
    rows = 100_000 if failing == "write" else 3  # so many that they are written before the end
    source = open_source(write(tmp_path / "q.jsonl", b"{}\n" * rows))
    path = tmp_path / "input.pos"

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if failing == "open":
        path = tmp_path / "nowhere" / "input.pos"
    elif failing == "fdatasync":
        monkeypatch.setattr("os.fdatasync", fail)
    else:
        (tmp_path / ".input.pos.tmp").symlink_to("/dev/full")
    assert source.index(path) == rows
    assert source.positions(path) is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["q.jsonl"]


def test_compressed_files_are_counted_only(tmp_path: Path):
    source = open_source(write(tmp_path / "q.jsonl.gz", gzip.compress(b'{"n": 0}\n{"n": 1}\n')))
    assert source.index(tmp_path / "input.pos") == 2
    assert source.positions(tmp_path / "input.pos") is None
    assert not (tmp_path / "input.pos").exists()


def test_a_source_need_not_have_positions(tmp_path: Path):
    source: Source = SampledSource([], {})
    assert not isinstance(source, Positioned)
    assert isinstance(open_source(write(tmp_path / "q.jsonl", b"{}\n")), Positioned)


def test_a_position_where_no_line_begins_is_a_bad_row(tmp_path: Path):
    source = open_source(write(tmp_path / "q.jsonl", b'{"n": 0}\n{"n": 1}\n'))
    good, inside, beyond = source.fetch([(0, 1, 9), (0, 2, 10), (0, 3, 700)])
    assert good.data == {"n": 1}
    assert "q.jsonl:3: no such row any more: the file has changed" in inside.error
    assert "q.jsonl:4: no such row any more: the file has changed" in beyond.error
