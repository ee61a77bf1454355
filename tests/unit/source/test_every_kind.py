"""What holds for every kind of input alike: the contract that a run and its resumption rely on."""

import pickle
import random
from pathlib import Path

import pytest
from kinds import COUNT, KINDS, ROWS, Kind

from peerloom.source.combined import PartsSource
from peerloom.source.fingerprint import fingerprint
from peerloom.source.format import FORMATS
from peerloom.source.open import open_source
from peerloom.source.positions import Positioned, Positions

pytestmark = pytest.mark.usefixtures("bucket")


@pytest.fixture(params=KINDS, ids=lambda row: f"{row[0]}-{row[1].__name__}")
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    folder = tmp_path / "input"
    folder.mkdir()
    name, kind = request.param
    made = kind(folder)
    made.format = name
    return made


def opened(kind: Kind, limit: int | None = None) -> PartsSource:
    return open_source(kind.path, format=kind.format, limit=limit)


def test_every_format_is_tested() -> None:
    assert set(FORMATS.names()) <= {"stream", *(name for name, _ in KINDS)}  # streams: test_streams.py


def test_a_built_in_format_is_detected(kind: Kind) -> None:
    if ":" not in kind.format:
        assert fingerprint(open_source(kind.path)) == fingerprint(opened(kind))


def test_all_rows_are_read_in_order(kind: Kind) -> None:
    source = opened(kind)
    rows = list(source.rows(0, 1))
    assert [row.error for row in rows] == [""] * COUNT
    assert [row.data for row in rows] == [kind.value(number) for number in range(COUNT)]
    assert source.total() == COUNT
    ids = [row[:2] for row in rows]
    assert ids == sorted(set(ids))


@pytest.mark.parametrize("partitions", [2, 3, 30])
def test_partitions_together_are_the_whole(kind: Kind, partitions: int) -> None:
    source = opened(kind)
    parts = [list(source.rows(part, partitions)) for part in range(partitions)]
    assert all((row.file + row.row) % partitions == p for p, part in enumerate(parts) for row in part)
    assert sorted((row for part in parts for row in part), key=lambda row: row[:2]) == list(source.rows(0, 1))


@pytest.mark.parametrize("seed", range(3))
def test_any_rows_are_fetched_by_position(kind: Kind, seed: int) -> None:
    source = opened(kind)
    rows = list(source.rows(0, 1))
    wanted = random.Random(seed).choices(rows, k=12)
    assert source.fetch([row[:3] for row in wanted]) == wanted
    assert source.fetch([(row.file, row.row, -1) for row in wanted]) == wanted
    assert [source.fetch([row[:3]])[0] for row in rows] == rows
    assert source.fetch([]) == []


def test_a_row_beyond_the_end_is_a_bad_row(kind: Kind) -> None:
    (row,) = opened(kind).fetch([(0, 1000, -1)])
    assert "no such row any more" in row.error


@pytest.mark.parametrize("limit", [0, 1, 9, 12, 22, 23, 100])
def test_a_limit_is_the_first_rows(kind: Kind, limit: int, tmp_path: Path) -> None:
    everything = list(opened(kind).rows(0, 1))
    source = opened(kind, limit)
    found = [row for part in range(3) for row in source.rows(part, 3)]
    assert sorted(found, key=lambda row: row[:2]) == everything[:limit]
    assert source.total() == source.index(tmp_path / "input.pos") == min(limit, COUNT)
    positions = source.positions(tmp_path / "input.pos")
    if positions is not None:
        assert positions.total == min(limit, COUNT)
        assert source.fetch(named(positions)) == everything[:limit]


def named(positions: Positions) -> list[tuple[int, int, int]]:
    """All positions that there are."""
    places = [(file, row) for file, lines in enumerate(positions.lines) for row in range(lines)]
    return [(file, row, positions.find(file, row)[0]) for file, row in places if positions.find(file, row)[1]]


def test_counting_leaves_where_to_go_on(kind: Kind, tmp_path: Path) -> None:
    source = opened(kind)
    assert isinstance(source, Positioned)
    assert source.index(tmp_path / "input.pos") == COUNT
    assert source.index(tmp_path / "input.pos") == COUNT
    positions = source.positions(tmp_path / "input.pos")
    packed = any(path.endswith((".gz", ".bz2", ".xz")) for path in kind.path)
    assert (positions is None) == packed
    if positions is not None:
        assert source.fetch(named(positions)) == list(source.rows(0, 1))


def test_a_bad_row_costs_one_row(kind: Kind) -> None:
    kind.spoil(5)
    rows = list(opened(kind).rows(0, 1))
    assert len(rows) == COUNT
    assert [number for number, row in enumerate(rows) if row.error] == [5]
    assert rows[5].data is None
    assert [row.data for number, row in enumerate(rows) if number != 5] == [
        kind.value(number) for number in range(COUNT) if number != 5
    ]


def test_changed_input_is_noticed(kind: Kind) -> None:
    before = fingerprint(opened(kind))
    assert fingerprint(opened(kind)) == before
    kind.write([*ROWS[:-1], {"n": 22, "text": "row 22 è"}])
    assert fingerprint(opened(kind)) != before


def test_the_limit_may_grow(kind: Kind) -> None:
    one, two = fingerprint(opened(kind, 1)), fingerprint(opened(kind, 2))
    assert (one.pop("limit"), two.pop("limit")) == (1, 2)
    assert one == two


def test_it_travels(kind: Kind) -> None:
    source = opened(kind)
    rows = list(source.rows(0, 1))
    source.fetch([rows[0][:3]])  # leaves a reader open
    there = pickle.loads(pickle.dumps(source))
    assert list(there.rows(0, 1)) == rows
    assert there.fetch([rows[3][:3]]) == [rows[3]]
    assert fingerprint(there) == fingerprint(source)
