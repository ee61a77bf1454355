import errno
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sink_helpers import ids_on_disk, rows

from peerloom.errors import RunDirError
from peerloom.sink.errors import DiskFull, ShardLost
from peerloom.sink.rundir.directory import RunDir, in_use
from peerloom.sink.rundir.state import Fingerprint, State
from peerloom.sink.shard import ShardFiles


@contextmanager
def claimed(path: Path, *, fresh: bool = False) -> Iterator[RunDir]:
    run_dir = RunDir.claim(path, fresh=fresh)
    try:
        yield run_dir
    finally:
        run_dir.release()


EMPTY = {
    *("data", "rejected", "logs", "log.jsonl"),
    *(".peerloom", ".peerloom/run.lock", ".peerloom/index", ".peerloom/locks", ".peerloom/journal"),
    ".peerloom/program",
}
"""The entries of the directory of a run that has not begun."""


def tree(path: Path) -> set[str]:
    return {str(each.relative_to(path)) for each in path.rglob("*")}


def finished_run(path: Path) -> None:
    with claimed(path) as run_dir:
        run_dir.write("run.yaml", "recipe: coral\n")
        ((run_dir.path / "logs") / "llama.log").write_text("ready\n")
        shard = ShardFiles.take(run_dir.path, 0, 1)
        shard.commit(rows([1, 2, 3]))
        shard.close()
        run_dir.write("summary.json", {"admitted": 3})


def test_a_claim_makes_the_folders(tmp_path: Path):
    with claimed(tmp_path / "runs" / "one") as run_dir:
        assert run_dir.path == tmp_path / "runs" / "one"
        assert (run_dir.path / "logs") == run_dir.path / "logs"
        assert tree(run_dir.path) == EMPTY


def test_an_empty_directory_is_taken(tmp_path: Path):
    with claimed(tmp_path):
        pass


def test_a_second_claim_is_refused_until_the_first_is_released(tmp_path: Path):
    with (
        claimed(tmp_path / "run"),
        pytest.raises(
            RunDirError,
            match=rf"run is in use by another run \(process {os.getpid()}\).*choose another run directory",
        ),
    ):
        RunDir.claim(tmp_path / "run", fresh=True)
    with claimed(tmp_path / "run"):
        pass


def test_a_claim_waits_for_whoever_only_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    RunDir.claim(tmp_path).release()
    with (tmp_path / ".peerloom/run.lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        monkeypatch.setattr("time.sleep", lambda _: fcntl.flock(looking, fcntl.LOCK_UN))
        with claimed(tmp_path):
            assert in_use(tmp_path)


def test_another_process_is_refused_and_its_death_frees_the_directory(tmp_path: Path):
    code = "from peerloom.sink.rundir.directory import *; import sys; input(RunDir.claim(sys.argv[1]).path)"
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.read(4)
        with pytest.raises(RunDirError, match=rf"in use by another run \(process {holder.pid}\)"):
            RunDir.claim(tmp_path / "run")
        holder.kill()
    with claimed(tmp_path / "run"):
        pass


def test_releasing_twice_is_fine(tmp_path: Path):
    run_dir = RunDir.claim(tmp_path / "run")
    run_dir.release()
    run_dir.release()


STATE = State(session=3, peerloom="0.1.0", fingerprint=Fingerprint({"seed": 1}), wall_seconds=4.5)


def test_a_run_with_a_state_is_claimed_as_it_is(tmp_path: Path):
    finished_run(tmp_path / "run")
    with claimed(tmp_path / "run", fresh=True) as run_dir:
        assert run_dir.state is None
        run_dir.write_state(STATE)
        shard = ShardFiles.take(run_dir.path, 0, 1)
        shard.commit(rows([1, 2, 3]))
        shard.close()
        run_dir.log("info", "first")
    with claimed(tmp_path / "run") as run_dir:
        assert run_dir.state == STATE
        assert run_dir.has_work
        run_dir.log("info", "second")
        assert len((run_dir.path / "log.jsonl").read_text().splitlines()) == 2
    assert ids_on_disk(tmp_path / "run") == [1, 2, 3]


def test_a_run_that_is_cleared_is_none_any_more_and_its_writers_are_locked_out(tmp_path: Path):
    with claimed(tmp_path / "run") as run_dir:
        run_dir.write_state(STATE)
        late = ShardFiles.take(run_dir.path, 0, 1)
        run_dir.clear()
        assert run_dir.state is None
        with pytest.raises(ShardLost):
            late.commit(rows([1]))
        late.close()
        run_dir.log("info", "after")
        assert not run_dir.has_work
        assert '"after"' in (run_dir.path / "log.jsonl").read_text()


def test_turns_and_calls_of_unfinished_rows_are_work(tmp_path: Path):
    with claimed(tmp_path / "run") as run_dir:
        assert not run_dir.has_work
        (run_dir.path / ".peerloom/journal" / "peer-000-0001-0000.jnl").write_bytes(b"x")
        assert run_dir.has_work
    with pytest.raises(
        RunDirError, match=r"holds a run \(\.peerloom/journal\) without \.peerloom/state\.json"
    ):
        RunDir.claim(tmp_path / "run")


@pytest.mark.parametrize("damaged", [False, True])
def test_the_number_of_the_last_session_outlives_its_run(tmp_path: Path, damaged: bool):
    with claimed(tmp_path / "run") as run_dir:
        assert run_dir.last_session == 0
        run_dir.write_state(STATE)
    if damaged:
        (tmp_path / "run" / ".peerloom/state.json").write_text("{")
    with claimed(tmp_path / "run", fresh=True) as run_dir:
        assert run_dir.last_session == (0 if damaged else 3)
        run_dir.write_state(STATE)
        run_dir.clear()
        assert run_dir.last_session == (0 if damaged else 3)


@pytest.mark.parametrize("gone", [(), ("run.yaml", "summary.json")])
def test_a_run_without_a_state_is_refused(tmp_path: Path, gone: tuple[str, ...]):
    finished_run(tmp_path / "run")
    for name in gone:
        (tmp_path / "run" / name).unlink()
    before = tree(tmp_path)
    with pytest.raises(
        RunDirError,
        match=r"holds a run \(.*data.*\) without \.peerloom/state\.json.*--fresh \(fresh=True in Python\)",
    ):
        RunDir.claim(tmp_path / "run")
    assert tree(tmp_path) == before


def test_a_state_that_is_damaged_is_refused_and_fresh_replaces_it(tmp_path: Path):
    finished_run(tmp_path / "run")
    (tmp_path / "run" / ".peerloom/state.json").write_text("{")
    with pytest.raises(RunDirError, match=r"state\.json cannot be read"):
        RunDir.claim(tmp_path / "run")
    with claimed(tmp_path / "run", fresh=True):
        pass


def test_fresh_removes_the_earlier_run(tmp_path: Path):
    finished_run(tmp_path / "run")
    with claimed(tmp_path / "run", fresh=True) as run_dir:
        assert tree(run_dir.path) == EMPTY
        shard = ShardFiles.take(run_dir.path, 0, 1)
        assert len(shard.committed) == 0
        shard.close()


def test_fresh_locks_out_writers_of_the_earlier_run(tmp_path: Path):
    with claimed(tmp_path / "run"):
        late = ShardFiles.take(tmp_path / "run", 0, 1, rotate_bytes=1)
        late.commit(rows([1, 2]))
    with claimed(tmp_path / "run", fresh=True):
        shard = ShardFiles.take(tmp_path / "run", 0, 1)
        with pytest.raises(ShardLost, match="the run directory was cleared"):
            late.commit(rows([3, 4]))
        late.close()
        assert ids_on_disk(tmp_path / "run") == []
        shard.close()


def test_a_run_that_never_began_leaves_the_directory_free(tmp_path: Path):
    with claimed(tmp_path / "run") as run_dir:
        run_dir.log("error", "llm_unreachable")
        ShardFiles.take(run_dir.path, 0, 1).close()
    with claimed(tmp_path / "run"):
        ShardFiles.take(tmp_path / "run", 0, 1).close()


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize(
    "name", ["thesis.txt", "data/part-00000.jsonl", "run.yaml", "logs/app.log", ".git/config"]
)
def test_a_directory_that_is_not_peerlooms_is_not_touched(tmp_path: Path, name: str, fresh: bool):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(RunDirError, match="is not empty and contains no run of Peerloom"):
        RunDir.claim(tmp_path, fresh=fresh)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("fresh", [True, False])
def test_a_run_of_an_earlier_release_is_refused_and_kept(tmp_path: Path, fresh: bool):
    for name in ("run.lock", "state.json", "run.yaml"):
        (tmp_path / name).write_text("{}")
    before = tree(tmp_path)
    with pytest.raises(RunDirError, match=r"holds a run of an earlier release.*use the release that started"):
        RunDir.claim(tmp_path, fresh=fresh)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "data/mine.jsonl",
        "logs/notes.md",
        ".peerloom/locks/x",
        ".peerloom/notes.txt",
        "data/deep/file",
    ],
)
def test_foreign_files_in_a_run_are_refused_and_kept(tmp_path: Path, name: str, fresh: bool):
    finished_run(tmp_path / "run")
    foreign = tmp_path / "run" / name
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(RunDirError, match=r"holds .*, which is not Peerloom's: move it away"):
        RunDir.claim(tmp_path / "run", fresh=fresh)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["notes.txt", "core", "data/mine.jsonl", "data/.nfs0001", "data/deep/file"])
def test_a_run_goes_on_beside_foreign_files_but_is_not_removed(tmp_path: Path, name: str):
    with claimed(tmp_path / "run") as run_dir:
        run_dir.write_state(STATE)
    foreign = tmp_path / "run" / name
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text("mine")
    with claimed(tmp_path / "run") as run_dir:
        assert run_dir.state == STATE
        before = tree(tmp_path)
        if ".nfs" in name:
            run_dir.clear()
            assert run_dir.state is None
        else:
            with pytest.raises(RunDirError, match="which is not Peerloom's: move it away"):
                run_dir.clear()
            assert tree(tmp_path) == before
    assert foreign.read_text() == "mine"


def test_what_nfs_keeps_of_removed_files_is_nobodys(tmp_path: Path):
    (tmp_path / ".nfs0001").write_text("")
    with claimed(tmp_path):
        pass
    with claimed(tmp_path, fresh=True):
        pass
    assert (tmp_path / ".nfs0001").exists()


def test_a_file_in_the_way_is_refused(tmp_path: Path):
    (tmp_path / "run").write_text("")
    for path in (tmp_path / "run", tmp_path / "run" / "below"):
        with pytest.raises(
            RunDirError, match=r"run.* cannot be used for a run: .*choose another run directory"
        ):
            RunDir.claim(path)


def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def denied(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / ".peerloom/run.lock"))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", denied)
        with pytest.raises(RunDirError, match=r"run\.lock cannot be used for a run: Permission denied"):
            RunDir.claim(tmp_path)


def test_yaml_and_summary_are_written_whole(tmp_path: Path):
    with claimed(tmp_path / "run") as run_dir:
        for number in (1, 2):
            run_dir.write("run.yaml", f"limit: {number}\n")
            run_dir.write("summary.json", {"admitted": number})
        assert (run_dir.path / "run.yaml").read_text() == "limit: 2\n"
        assert json.loads((run_dir.path / "summary.json").read_text()) == {"admitted": 2}
        assert not list(run_dir.path.glob(".*.tmp"))


def test_a_summary_without_room_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with claimed(tmp_path / "run") as run_dir:
        run_dir.write("summary.json", {"admitted": 1})
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(DiskFull, match=r"summary\.json"):
                run_dir.write("summary.json", {"admitted": 2})
        assert json.loads((run_dir.path / "summary.json").read_text()) == {"admitted": 1}
        assert not list(run_dir.path.glob(".*.tmp"))


def test_the_log_is_json_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with claimed(tmp_path / "run") as run_dir:
        run_dir.log("info", "started", peers=4, where=tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", fail)
            run_dir.log("info", "dropped")
        run_dir.log("warning", "member_lost", member="peer-1")
        first, second = map(json.loads, (run_dir.path / "log.jsonl").read_text().splitlines())
    assert first.pop("time") <= second.pop("time")
    assert first == {"level": "info", "event": "started", "peers": 4, "where": str(tmp_path)}
    assert second == {"level": "warning", "event": "member_lost", "member": "peer-1"}
