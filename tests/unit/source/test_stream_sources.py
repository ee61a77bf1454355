"""Streams are recorded in order, a bounded number of rows ahead, and read from the record."""

import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kinds import ROWS, jsonl, parquet

import peerloom
from peerloom.errors import ConfigError, SourceError
from peerloom.source.formats.auto import Auto
from peerloom.source.stream.recording import AHEAD, RecordedSource, Recorder, StreamSource
from peerloom.source.stream.streams import FolderStream, IterableStream, PipeStream, Stream


def recorded(
    path: Path, stream: Stream, limit: int | None = None, admitted: int = 1 << 30
) -> tuple[RecordedSource, int]:
    """The source of a stream that is recorded to its end."""
    recorder = Recorder(StreamSource(stream, limit=limit), path)
    source = recorder.begin()
    try:
        while not recorder.advance(admitted):
            pass
    finally:
        recorder.close()
    return source, recorder.rows


def values(source: RecordedSource, partition: int = 0, partitions: int = 1) -> list[Any]:
    rows = itertools.takewhile(lambda row: row is not None, source.follow(partition, partitions))
    return [row.data if row is not None and not row.error else None for row in rows]


def test_rows_are_found_again_by_position(tmp_path: Path) -> None:
    source, count = recorded(
        tmp_path / "in", IterableStream(iter([*ROWS[:5], {"x": float("nan")}, 7, *ROWS[5:]]))
    )
    assert count == len(ROWS) + 2
    assert values(source) == [*ROWS[:5], None, None, *ROWS[5:]]
    assert values(source, 1, 3) == values(source)[1::3]
    rows = [row for row in source.follow(0, 1) if row is not None]
    assert source.fetch([row[:3] for row in reversed(rows)]) == rows[::-1]
    assert source.fetch([(0, 3, -1)]) == [rows[3]]
    assert "must be a JSON object" in rows[6].error


def test_a_stream_goes_on_where_its_record_ends(tmp_path: Path) -> None:
    path = tmp_path / "in"
    recorded(path, IterableStream(iter(ROWS)), limit=5)
    path.write_bytes(path.read_bytes().replace(b'{"end":"limit"}\n', b'{"row":{"torn'))
    source, count = recorded(path, IterableStream(iter(ROWS)), limit=7)
    assert (count, values(source)) == (7, ROWS[:7])
    source, count = recorded(path, IterableStream(lambda start: ROWS[start:]))
    assert (count, values(source)) == (len(ROWS), ROWS)
    assert recorded(path, IterableStream(iter([])))[1] == len(ROWS), "it has ended"


def test_other_rows_are_noticed(tmp_path: Path) -> None:
    recorded(tmp_path / "in", IterableStream(iter(ROWS)), limit=5)
    with pytest.raises(SourceError, match=r"row 2 of source= is not the one that was recorded"):
        recorded(tmp_path / "in", IterableStream(iter([*ROWS[:2], *ROWS[3:]])), limit=9)


def test_no_more_rows_are_taken_than_are_soon_admitted(tmp_path: Path) -> None:
    taken, waits = itertools.count(), threading.Event()

    def rows(start: int) -> Iterator[dict[str, int]]:
        for number in range(AHEAD + 1):
            if number == AHEAD:
                waits.set()
            next(taken)
            yield {"n": number}

    recorder = Recorder(StreamSource(IterableStream(rows)), tmp_path / "in")
    recorder.begin()
    recorder.advance(0)
    assert not waits.wait(0.3) and recorder.rows <= AHEAD
    recorder.advance(10)
    assert waits.wait(10)
    recorder.close()


@pytest.mark.parametrize("rows", [iter([]), lambda start: []])
def test_a_stream_without_a_row_is_an_error(rows: Any, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="ended without a row"):
        recorded(tmp_path / "in", IterableStream(rows))


def test_the_error_of_a_generator_is_named(tmp_path: Path) -> None:
    def broken(start: int) -> Iterator[dict[str, int]]:
        yield {"n": 1}
        raise ValueError("no more")

    with pytest.raises(SourceError, match="failed after 1 rows: ValueError: no more"):
        recorded(tmp_path / "in", IterableStream(broken))


def test_lines_of_a_pipe(tmp_path: Path) -> None:
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)

    def write() -> None:
        with open(pipe, "wb") as file:
            file.write(jsonl(ROWS[:3]) + b"\n{\n" + jsonl(ROWS[3:]).rstrip())

    writer = threading.Thread(target=write)
    writer.start()
    source, _ = recorded(tmp_path / "in", PipeStream(pipe))
    writer.join()
    assert values(source) == [*ROWS[:3], None, *ROWS[3:]]


def test_files_that_appear(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(jsonl(ROWS[:4]))
    (folder / ".hidden.jsonl").write_bytes(jsonl(ROWS))
    (folder / "b.jsonl.tmp").write_bytes(jsonl(ROWS))

    def stream() -> FolderStream:
        return FolderStream(str(folder), Auto(), 0.5, None)

    recorded(tmp_path / "in", stream(), limit=3)
    parquet(folder / "b.parquet", ROWS[4:])
    (folder / "c.parquet").write_bytes(b"broken")
    source, _ = recorded(tmp_path / "in", stream())
    assert values(source) == [*ROWS, None]


def run(**options: Any) -> Any:
    agents = {"a": peerloom.FunctionAgent(lambda task: task.input["n"])}
    return peerloom.run(
        workflow=peerloom.Sequence("a"), agents=agents, llm="simulated", engine="local", **options
    )


def test_runs_over_streams(tmp_path: Path) -> None:
    def numbers() -> Iterator[dict[str, int]]:
        return ({"n": number} for number in itertools.count())

    for limit in (5, 9):
        result = run(source=numbers(), limit=limit, run_dir=tmp_path / "run", trials=2)
        assert result.how == "finished"
        assert sorted(row["result"] for row in result) == sorted([*range(limit)] * 2)
    (tmp_path / "in.jsonl").write_bytes(jsonl(ROWS))
    result = run(
        source=str(tmp_path / "in*"),
        run_dir=tmp_path / "folder",
        config={"source.format": "stream", "source.idle": 0.5},
    )
    assert sorted(row["result"] for row in result) == list(range(len(ROWS)))


def test_a_stream_has_one_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one path, pattern, or -"):
        run(source=["a", "b"], run_dir=tmp_path / "run", config={"source.format": "stream"})
