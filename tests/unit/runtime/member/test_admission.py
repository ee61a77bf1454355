import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from peerloom.errors import SourceError
from peerloom.idset import IdSet
from peerloom.runtime.member import admission as offers
from peerloom.runtime.member.admission import AdmissionQueue
from peerloom.runtime.settings import RunSettings
from peerloom.source.base import Position, SourceRow
from peerloom.source.combined import PartsSource
from peerloom.source.memory import RowsSource
from peerloom.source.parts.json_lines import JsonlPart
from peerloom.source.storage.files import local_file
from peerloom.task import TaskId


class Counting(PartsSource):
    """Remembers what was fetched, and whether the input was read through."""

    streamed = False
    fetched: list[int]

    def rows(self, partition: int, partitions: int) -> Iterator[SourceRow]:
        self.streamed = True
        return super().rows(partition, partitions)

    def fetch(self, positions: Sequence[Position]) -> list[SourceRow]:
        self.fetched = [*getattr(self, "fetched", []), len(positions)]
        return super().fetch(positions)


def a_source(folder: Path, *files: bytes) -> Counting:
    for index, data in enumerate(files):
        (folder / f"{index}.jsonl").write_bytes(data)
    return Counting([JsonlPart(local_file(f"{folder}/{index}.jsonl")) for index in range(len(files))])


def numbered(count: int, size: int = 0) -> bytes:
    return b"".join(b'{"n": %d, "fill": "%s"}\n' % (number, b"x" * size) for number in range(count))


async def taken(ahead: AdmissionQueue) -> list[TaskId]:
    """All offers, in order; their rows must be the right ones."""
    ids: list[TaskId] = []
    while not ahead.exhausted:
        if ahead.needs_refill:
            await ahead.refill()
        while (candidate := ahead.pop()) is not None:
            id, row = candidate
            assert (id.file, id.row) == (row.file, row.row)
            assert not row.error
            ids.append(id)
    assert ahead.pop() is None
    return ids


def all_ids(source: PartsSource, trials: int) -> list[TaskId]:
    return [TaskId(row.file, row.row, trial) for row in source.rows(0, 1) for trial in range(trials)]


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("positions", [True, False])
async def test_together_the_partitions_offer_what_is_missing(tmp_path: Path, seed: int, positions: bool):
    dice = random.Random(seed)
    data = [
        b"".join(dice.choice([b'{"n": 1}\n', b'{"n": 1}\n', b"\n"]) for _ in range(dice.choice([0, 3, 60])))
        for _ in range(dice.randrange(1, 4))
    ]
    source = a_source(tmp_path, *data)
    if positions:
        source.index(tmp_path / "input.pos")
    settings = RunSettings(partitions=dice.randrange(1, 4), trials=dice.randrange(1, 4))
    everything = all_ids(source, settings.trials)
    known = {id for id in everything if dice.random() < dice.choice([0.1, 0.9])}
    found: list[TaskId] = []
    for partition in range(settings.partitions):
        mine = await taken(AdmissionQueue(source, partition, settings, IdSet(known), tmp_path / "input.pos"))
        assert mine == sorted(mine)
        found += mine
    assert len(found) == len(set(found))
    assert {id for id in found if id not in known} == set(everything) - known


async def test_done_rows_are_not_read(tmp_path: Path):
    source = a_source(tmp_path, numbered(20_000))
    source.index(tmp_path / "input.pos")
    missing = [TaskId(0, row, 0) for row in (0, 7, 8191, 8192, 19_999)]
    known = IdSet(set(all_ids(source, 1)) - set(missing))
    source.streamed = False
    assert await taken(AdmissionQueue(source, 0, RunSettings(), known, tmp_path / "input.pos")) == missing
    assert not source.streamed
    assert source.fetched == [5]


async def test_a_row_with_a_missing_trial_is_offered(tmp_path: Path):
    source = a_source(tmp_path, numbered(10))
    source.index(tmp_path / "input.pos")
    known = IdSet(set(all_ids(source, 3)) - {TaskId(0, 4, 1)})
    found = await taken(AdmissionQueue(source, 0, RunSettings(trials=3), known, tmp_path / "input.pos"))
    assert found == [TaskId(0, 4, trial) for trial in range(3)]


async def test_chunks_are_bounded_by_rows_and_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = a_source(tmp_path, numbered(1_000), numbered(10, size=1_000))
    source.index(tmp_path / "input.pos")
    monkeypatch.setattr(offers, "FIRST_ROWS", 100)
    monkeypatch.setattr(offers, "CHUNK_ROWS", 300)
    monkeypatch.setattr(offers, "CHUNK_BYTES", 100 * 23 + 7 * 1_021)
    assert (
        len(await taken(AdmissionQueue(source, 0, RunSettings(), IdSet(), tmp_path / "input.pos"))) == 1_010
    )
    assert source.fetched == [100, 200, 300, 300, 107, 3]
    source.fetched = []
    monkeypatch.setattr(offers, "CHUNK_BYTES", 10)
    assert (
        len(await taken(AdmissionQueue(source, 0, RunSettings(), IdSet(), tmp_path / "input.pos"))) == 1_010
    )
    assert source.fetched == [1] * 1_010


async def test_reading_ahead_stops_while_there_is_enough(tmp_path: Path):
    source = a_source(tmp_path, numbered(2_000))
    source.index(tmp_path / "input.pos")
    ahead = AdmissionQueue(source, 0, RunSettings(), IdSet(), tmp_path / "input.pos")
    assert ahead.needs_refill and ahead.pop() is None and not ahead.exhausted
    while ahead.needs_refill:
        await ahead.refill()
    ready = sum(source.fetched)
    assert offers.CHUNK_ROWS // 2 <= ready <= 2 * offers.CHUNK_ROWS
    for _ in range(ready - offers.CHUNK_ROWS // 2):
        assert not ahead.needs_refill
        assert ahead.pop() is not None
    assert ahead.pop() is not None
    assert ahead.needs_refill


async def test_the_offset_of_any_row_is_known_with_positions(tmp_path: Path):
    source = a_source(tmp_path, b"\n\n", numbered(30))
    offsets = {TaskId(row.file, row.row, 0): row.offset for row in source.rows(0, 1)}
    ahead = AdmissionQueue(source, 0, RunSettings(), IdSet(), tmp_path / "input.pos")
    assert {ahead.offset(id) for id in offsets} == {-1}
    source.index(tmp_path / "input.pos")
    await ahead.refill()
    assert {id: ahead.offset(id) for id in offsets} == offsets


async def test_a_run_that_is_done_offers_nothing(tmp_path: Path):
    source = a_source(tmp_path, numbered(100))
    source.index(tmp_path / "input.pos")
    known = IdSet(all_ids(source, 1))
    assert await taken(AdmissionQueue(source, 0, RunSettings(), known, tmp_path / "input.pos")) == []
    assert not hasattr(source, "fetched")


@pytest.mark.parametrize("damage", ["missing", "cut", "of another input"])
async def test_without_good_positions_the_source_is_read(tmp_path: Path, damage: str):
    source = a_source(tmp_path, numbered(50))
    path = tmp_path / "input.pos"
    if damage != "missing":
        source.index(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    if damage == "of another input":
        source = a_source(tmp_path, numbered(60))
    expected = all_ids(source, 1)
    source.streamed = False
    assert await taken(AdmissionQueue(source, 0, RunSettings(), IdSet(), path)) == expected
    assert source.streamed


async def test_a_source_of_ones_own_is_read_through(tmp_path: Path):
    rows = RowsSource([{"n": number} for number in range(5)])
    found = await taken(AdmissionQueue(rows, 1, RunSettings(partitions=2), IdSet(), tmp_path / "input.pos"))
    assert found == [TaskId(0, row, 0) for row in (1, 3)]


class Streamed(RowsSource):
    """A source that does not know the positions of its rows."""

    positions = None  # type: ignore[assignment]


class Telling(Streamed):
    """Says in which threads it was read."""

    def __init__(self, rows: list[dict[str, int]]) -> None:
        super().__init__(rows)
        self.threads: set[int] = set()

    def rows(self, partition: int, partitions: int) -> Iterator[SourceRow]:
        for row in super().rows(partition, partitions):
            self.threads.add(threading.get_ident())
            yield row


async def test_a_source_without_positions_is_read_off_the_loop_and_in_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Telling([{"n": number} for number in range(2_000)])
    ahead = AdmissionQueue(source, 0, RunSettings(), IdSet(), tmp_path / "input.pos")
    assert ahead.pop() is None and not ahead.exhausted
    await ahead.refill()
    first = [ahead.pop() for _ in range(offers.FIRST_ROWS)]
    assert None not in first and ahead.pop() is None
    assert threading.get_ident() not in source.threads
    assert len(await taken(ahead)) == 2_000 - offers.FIRST_ROWS
    monkeypatch.setattr(offers, "CHUNK_SECONDS", 0)
    ahead = AdmissionQueue(source, 0, RunSettings(), IdSet(), tmp_path / "input.pos")
    await ahead.refill()
    assert ahead.pop() is not None and ahead.pop() is None


async def test_an_error_while_reading_is_not_the_end(tmp_path: Path) -> None:
    class Broken(Streamed):
        def rows(self, partition: int, partitions: int) -> Iterator[SourceRow]:
            yield from list(super().rows(partition, partitions))[:3]
            raise SourceError("q.jsonl cannot be read any more")

    ahead = AdmissionQueue(Broken([{"n": 0}] * 5), 0, RunSettings(), IdSet(), tmp_path / "input.pos")
    with pytest.raises(SourceError, match="cannot be read any more"):
        await ahead.refill()
    assert not ahead.exhausted
