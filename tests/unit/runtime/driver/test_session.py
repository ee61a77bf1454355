import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from peerloom.errors import ConfigError, RunDirError
from peerloom.runtime.driver.session import SPAN, Session
from peerloom.runtime.settings import RunSettings, members
from peerloom.services.llm.base import LLM
from peerloom.services.llm.client.context import ClientContext
from peerloom.services.llm.client.service import ClientSpec
from peerloom.sink.rows import Row
from peerloom.sink.rundir.directory import RunDir
from peerloom.sink.rundir.state import Fingerprint, read_state
from peerloom.sink.shard import ShardFiles
from peerloom.task import TaskId


class Client:
    fleets = ()

    def __init__(self, model: str | None) -> None:
        self.model = model

    def map_services(self, change: Any) -> ClientSpec:
        raise NotImplementedError

    def connect(self, context: ClientContext | None = None) -> LLM:
        raise NotImplementedError


@contextmanager
def session(path: Path, seed: int = 0, limit: int | None = None, **options: bool) -> Iterator[Session]:
    run_dir = RunDir.claim(path)
    try:
        yield Session(run_dir, Fingerprint({"seed": seed}, {"limit": limit}), **options)
    finally:
        run_dir.release()


def commit(run_dir: Path, number: int, incarnation: int, outcome: str = "completed") -> None:
    shard = ShardFiles.take(run_dir, 0, incarnation)
    line = json.dumps({"id": f"0-{number}-0", "outcome": outcome, "reason": "r", "turns": []}).encode()
    shard.commit([Row(TaskId(0, number, 0), outcome, "r", line, {})])
    shard.close()


def test_the_number_is_on_disk_before_anything_else_and_only_then_counts(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        with session(tmp_path) as this:
            assert (this.number, this.first) == (number, (number - 1) * SPAN + 1)
            told = this.begin()
            assert bool(told) == (number > 1)
            found = read_state(tmp_path)
            assert found is not None
            assert (found.session, found.how) == (number, "running")
    with session(tmp_path):
        pass  # planned, not begun
    with session(tmp_path) as this:
        assert this.number == 4


def test_members_begin_where_the_session_does(tmp_path: Path) -> None:
    names = [member.name for member in members(RunSettings(peers=1), ["a"], 2_000_001)]
    assert names == ["feeder-0.2000001", "sink-0.2000001", "peer-0.2000001"]


def test_seconds_add_up_over_sessions_the_killed_ones_too(tmp_path: Path) -> None:
    with session(tmp_path) as this:
        this.begin()
        this.save(7.0)
    with session(tmp_path) as this:
        assert this.cpu_seconds == 7.0
        before = this.wall_seconds
        this.begin()
        this.save(9.0, "drained")
        this.save(1.0)  # a late one, from another thread, says nothing any more
    found = read_state(tmp_path)
    assert found is not None
    assert (found.how, found.cpu_seconds) == ("drained", 9.0)
    assert found.wall_seconds >= before


def test_another_run_is_refused_once_there_are_rows(tmp_path: Path) -> None:
    with session(tmp_path, seed=1) as this:
        this.begin()
    with session(tmp_path, seed=2) as this:
        assert this.number == 2  # whoever was left of the first one is older
        (told,) = this.begin()
        assert told.endswith("held another run, which had done nothing yet: it was removed")
        assert (this.wall_seconds, this.count) == (0.0, 1)
    commit(tmp_path, 0, 1)
    with pytest.raises(RunDirError, match=r"differs from this one:\n  seed: was 2, now 1\nRestore"):
        with session(tmp_path, seed=1):
            pass
    with session(tmp_path, seed=2) as this:
        assert (this.number, this.count) == (3, 2)


def test_another_run_is_refused_once_there_are_turns(tmp_path: Path) -> None:
    with session(tmp_path, seed=1) as this:
        this.begin()
    segment = tmp_path / ".peerloom/journal" / "peer-000-0001-0000.jnl"
    segment.write_bytes(b"paid for")
    with pytest.raises(RunDirError, match=r"seed: was 1, now 2\n"):
        with session(tmp_path, seed=2):
            pass
    assert segment.read_bytes() == b"paid for"


def test_another_run_is_refused_if_starting_over_is_not_wanted(tmp_path: Path) -> None:
    with session(tmp_path, seed=1) as this:
        this.begin()
    with pytest.raises(RunDirError, match=r"seed: was 1, now 2\n"):
        with session(tmp_path, seed=2, start_over=False):
            pass
    with session(tmp_path, seed=1, start_over=False) as this:
        assert this.number == 2


def test_another_model_is_refused_once_there_is_work(tmp_path: Path) -> None:
    with session(tmp_path) as this:
        this.begin()
        this.record_model(Client("gpt-a"))
    with session(tmp_path) as this:
        this.begin()
        this.record_model(Client("gpt-b"))  # nobody has asked the other one
        this.save(0.0, "drained")
    commit(tmp_path, 0, 1)
    with session(tmp_path) as this:
        this.begin()
        with pytest.raises(ConfigError, match=r"llm\.model: was gpt-b, now gpt-a\nRestore"):
            this.record_model(Client("gpt-a"))
        this.save(0.0, "failed")
    with session(tmp_path) as this:
        this.begin()
        this.record_model(Client("gpt-b"))
        this.record_model(Client(None))  # a service of somebody's own, which does not say


def test_another_version_of_peerloom_is_a_notice(tmp_path: Path) -> None:
    with session(tmp_path) as this:
        this.begin()
    path = tmp_path / ".peerloom/state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "peerloom": "0.0.9"}))
    with session(tmp_path) as this:
        assert any("begun with Peerloom 0.0.9, this is " in text for text in this.begin())


def test_a_finished_run_is_done_unless_there_is_more_to_do(tmp_path: Path) -> None:
    with session(tmp_path, limit=5) as this:
        this.begin()
        commit(tmp_path, 0, this.first, "failed")
        summary = {"admitted": 1, "outcomes": {"failed": 1}}
        this.run_dir.write("summary.json", summary)
        assert this.done is None
        this.save(0.0, "finished")
    with session(tmp_path, limit=5) as this:
        assert this.done == summary
    with session(tmp_path, limit=6) as this:
        assert this.done is None
    with session(tmp_path, limit=5, retry_failed=True) as this:
        assert this.done is None
        this.begin()
        assert this.retry() == 1
        commit(tmp_path, 0, this.first)  # the sinks of this session come after it
        this.run_dir.write("summary.json", {"admitted": 1, "outcomes": {"completed": 1}})
        this.save(0.0, "finished")
    with session(tmp_path, limit=5, retry_failed=True) as this:
        assert this.done is not None


def test_failed_rows_stay_unless_they_are_to_be_done_again(tmp_path: Path) -> None:
    with session(tmp_path) as this:
        this.begin()
        commit(tmp_path, 0, this.first, "failed")
    with session(tmp_path) as this:
        this.begin()
        assert this.retry() == 0
