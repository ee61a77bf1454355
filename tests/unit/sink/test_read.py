from pathlib import Path

import pytest
from sink_helpers import rows

from peerloom.errors import RunDirError
from peerloom.sink.read import read_rows
from peerloom.sink.shard import ShardFiles


def numbers(run_dir: Path, *, rejected: bool = True) -> list[int]:
    return [int(row["id"].split("-")[1]) for row in read_rows(run_dir, rejected=rejected)]


def open_shard(run_dir: Path) -> ShardFiles:
    shard = ShardFiles.take(run_dir, 0, 1, rotate_bytes=200)
    for start in range(0, 9, 3):
        shard.commit(rows(range(start, start + 3)))
    return shard


def test_all_rows_completed_ones_first(run_dir: Path):
    shard = open_shard(run_dir)
    assert numbers(run_dir) == [1, 2, 4, 5, 7, 8, 0, 3, 6]
    assert numbers(run_dir, rejected=False) == [1, 2, 4, 5, 7, 8]
    assert next(read_rows(run_dir))["outcome"] == "completed"
    shard.close()


@pytest.mark.parametrize("tail", [b'{"torn', b'{"id": "0-99-0"}\n'])
@pytest.mark.parametrize("folder", ["data", "rejected"])
def test_a_row_that_was_never_committed_is_left_out(run_dir: Path, tail: bytes, folder: str):
    shard = open_shard(run_dir)
    with max(run_dir.glob(f"{folder}/*")).open("ab") as file:
        file.write(tail)
    assert sorted(numbers(run_dir)) == list(range(9))
    shard.close()


def test_without_an_index_complete_lines_count(run_dir: Path):
    open_shard(run_dir).close()
    for path in run_dir.glob(".peerloom/index/*"):
        path.unlink()
    with max(run_dir.glob("data/*")).open("ab") as file:
        file.write(b'{"torn')
    assert sorted(numbers(run_dir)) == list(range(9))


def test_no_rows(run_dir: Path, tmp_path: Path):
    assert numbers(run_dir) == []
    assert numbers(tmp_path) == []
    with pytest.raises(RunDirError, match="there is no run directory"):
        read_rows(tmp_path / "nowhere")


def test_a_damaged_line_is_located(run_dir: Path):
    open_shard(run_dir).close()
    part = min(run_dir.glob("data/*"))
    damaged = bytearray(part.read_bytes())
    damaged[0] = ord("?")
    part.write_bytes(damaged)
    with pytest.raises(RunDirError, match=r"data/part-000-0001-0000\.jsonl:1 is damaged"):
        numbers(run_dir)
