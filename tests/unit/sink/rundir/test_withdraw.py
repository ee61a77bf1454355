import fcntl
import json
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from sink_helpers import Killed, at_system_call, ids_on_disk, make_folders, row

from peerloom.errors import RunDirError
from peerloom.sink.errors import ShardLost
from peerloom.sink.read import read_rows, read_totals
from peerloom.sink.rows import Row
from peerloom.sink.rundir.withdraw import withdraw_failed
from peerloom.sink.shard import ShardFiles
from peerloom.sink.totals import AgentTally

OUTCOMES = ("completed", "failed", "filtered")


def written(number: int) -> Row:
    """Completed, failed and filtered in turn, with the turn that its tally says."""
    made = row(number, OUTCOMES[number % 3])
    turn = {"agent": "teacher", "usage": {"prompt": 7, "calls": 1}, "seconds": 0.5}
    line = json.dumps({**json.loads(made.line), "reason": made.reason, "turns": [turn]}).encode()
    tally = {"teacher": AgentTally(turns=1, calls=1, prompt=7, seconds=0.5)}
    return Row(made.id, made.outcome, made.reason, line, tally)


def a_run(run_dir: Path, groups: list[list[int]], *, rotate_bytes: int = 10_000) -> ShardFiles:
    shard = ShardFiles.take(run_dir, 0, 1, rotate_bytes=rotate_bytes)
    for group in groups:
        shard.commit([written(number) for number in group])
    return shard


def committed(run_dir: Path) -> list[int]:
    return sorted(int(row["id"].split("-")[1]) for row in read_rows(run_dir))


def files_agree(run_dir: Path, incarnation: int) -> set[int]:
    """What a sink finds that takes the shard over now; it is what is in the files."""
    shard = ShardFiles.take(run_dir, 0, incarnation)
    known = {id.row for id in shard.committed}
    totals = shard.totals
    shard.close()
    numbers = committed(run_dir)
    assert numbers == sorted(known)
    parts = run_dir.glob("*/part-*.jsonl")
    found = [json.loads(line) for path in parts for line in path.read_bytes().splitlines()]
    assert sorted(int(each["id"].split("-")[1]) for each in found) == numbers
    assert totals.admitted == len(numbers)
    assert sum(totals.outcomes.values()) == len(numbers)
    assert totals.agents.get("teacher", AgentTally()).prompt == 7 * len(numbers)
    assert totals == read_totals(run_dir)
    return known


@pytest.mark.parametrize("rotate_bytes", [1, 10_000])
def test_failed_rows_are_gone_and_all_others_are_as_they_were(run_dir: Path, rotate_bytes: int) -> None:
    a_run(run_dir, [[0, 1, 2], [3], [4], [5, 7, 8]], rotate_bytes=rotate_bytes).close()
    before = {row["id"]: row for row in read_rows(run_dir) if row["outcome"] != "failed"}
    withdrawn = withdraw_failed(run_dir, 10)
    assert sorted(id.row for id in withdrawn) == [1, 4, 7]
    assert {row["id"]: row for row in read_rows(run_dir)} == before
    assert files_agree(run_dir, 11) == {0, 2, 3, 5, 8}
    assert read_totals(run_dir).outcomes == {"completed": 2, "filtered": 3}
    assert len(withdraw_failed(run_dir, 12)) == 0


def test_a_part_of_failed_rows_only_goes_away(run_dir: Path) -> None:
    a_run(run_dir, [[1, 4, 7]]).close()
    assert len(withdraw_failed(run_dir, 10)) == 3
    assert files_agree(run_dir, 11) == set()
    assert not list(run_dir.glob("*/*part*"))


def test_they_are_done_again_by_the_next_sink(run_dir: Path) -> None:
    a_run(run_dir, [[0, 1, 2]]).close()
    withdraw_failed(run_dir, 10)
    shard = ShardFiles.take(run_dir, 0, 11)
    shard.commit([row(1)])
    assert ids_on_disk(run_dir) == [0, 1, 2]
    assert shard.totals.outcomes == {"completed": 2, "filtered": 1}
    shard.close()


def test_whoever_still_writes_is_fenced_and_what_it_committed_counts(run_dir: Path) -> None:
    late = a_run(run_dir, [[0, 1, 2]])
    withdraw_failed(run_dir, 10)
    with pytest.raises(ShardLost):
        late.commit([written(4)])
    late.close()
    assert files_agree(run_dir, 11) == {0, 2}
    with pytest.raises(ShardLost):
        withdraw_failed(run_dir, 11)


@pytest.mark.parametrize("rotate_bytes", [1, 10_000])
@pytest.mark.parametrize("groups", [[[0, 1, 2], [3, 4]], [[1, 4]], [[0, 1]], [[1, 2]]])
def test_killed_at_any_system_call(tmp_path: Path, groups: list[list[int]], rotate_bytes: int) -> None:
    """Every other row stays; each failed one is there and committed, or neither."""
    numbers = {number for group in groups for number in group}
    kept = {number for number in numbers if number % 3 != 1}

    def kill() -> None:
        raise Killed

    for number in count(1):
        run_dir = make_folders(tmp_path / str(number))
        with at_system_call(0, kill):
            a_run(run_dir, groups, rotate_bytes=rotate_bytes).close()
        with at_system_call(number, kill) as reached, suppress(Killed):
            withdraw_failed(run_dir, 10)
        readable = set(committed(run_dir))
        assert kept <= readable <= numbers
        with at_system_call(0, kill):
            assert kept <= files_agree(run_dir, 11) <= numbers
            withdraw_failed(run_dir, 20)
            assert files_agree(run_dir, 21) == kept
        if not reached():
            assert number > 10
            return


def test_a_damaged_line_is_named_and_nothing_has_changed(run_dir: Path) -> None:
    a_run(run_dir, [[0, 1, 2]]).close()
    (path,) = (run_dir / "rejected").iterdir()
    path.write_bytes(path.read_bytes().replace(b'{"id"', b'["id"', 1))
    before = path.read_bytes()
    with pytest.raises(RunDirError, match=r"part-000-0001-0000\.jsonl:1 is damaged"):
        withdraw_failed(run_dir, 10)
    assert path.read_bytes() == before


def test_the_journal_forgets_them_first(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_run(run_dir, [[0, 1, 2], [4]], rotate_bytes=1).close()
    told: list[tuple[list[int], list[int]]] = []

    def forget(path: Path, ids: object) -> None:
        told.append((sorted(id.row for id in ids), committed(path)))  # type: ignore[attr-defined]

    monkeypatch.setattr("peerloom.sink.rundir.withdraw.forget", forget)
    withdraw_failed(run_dir, 10)
    assert told == [([1, 4], [0, 1, 2, 4])]


def test_no_taker_is_let_in_before_the_end(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_run(run_dir, [[0, 1, 2]]).close()
    path = run_dir / ".peerloom/locks" / "shard-000.lock"
    tried: list[int] = []

    def take(*_: object) -> None:
        with path.open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        tried.append(1)

    monkeypatch.setattr("peerloom.sink.rundir.withdraw.forget", take)
    withdraw_failed(run_dir, 10)
    assert tried
    assert files_agree(run_dir, 11) == {0, 2}
