"""A run directory lives through several sessions: what is committed stays, what is missing is done."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from programs import asking, slow, talk, unreliable

from peerloom.errors import ConfigError, RunDirError, ServiceError
from peerloom.events import Hooks, MemberJoined, Notice, Progress, ViewChanged
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.scripted import ScriptedService
from peerloom.services.llm.simulated.service import SimulatedService
from peerloom.sink.errors import ShardLost
from peerloom.sink.read import read_rows
from peerloom.sink.rows import Row
from peerloom.sink.shard import ShardFiles
from peerloom.source.memory import RowsSource
from peerloom.source.open import open_source
from peerloom.task import TaskId
from peerloom.testing import execute

ROWS = [{"n": number} for number in range(60)]
IDS = [f"0-{number}-0" for number in range(60)]


class Watch(Hooks):
    """Remembers what a test asks about, and calls `then` once, when `rows` are committed."""

    def __init__(self, rows: int = 0, then: Callable[[], object] | None = None) -> None:
        self.rows = rows
        self.then = then
        self.notices: list[str] = []
        self.members: list[str] = []
        self.views: list[int] = []
        self.seen: list[Progress] = []

    def notice(self, event: Notice) -> None:
        self.notices.append(event.text)

    def member_joined(self, event: MemberJoined) -> None:
        self.members.append(event.member)

    def view_changed(self, event: ViewChanged) -> None:
        self.views.append(event.number)

    def progress(self, event: Progress) -> None:
        self.seen.append(event)
        if self.then is not None and sum(event.outcomes.values()) >= self.rows:
            self.then()
            self.then = None


def lines(run_dir: Path) -> dict[str, bytes]:
    """Every row on disk by its id, as it is written; no id is there twice."""
    found: dict[str, bytes] = {}
    for part in (*run_dir.glob("data/part-*"), *run_dir.glob("rejected/part-*")):
        for line in part.read_bytes().splitlines():
            id = json.loads(line)["id"]
            assert id not in found
            found[id] = line
    return found


async def break_off(run_dir: Path, **settings: Any) -> dict[str, bytes]:
    """A first session that is broken off when some rows are committed; those rows."""
    watch = Watch(8)
    running = asyncio.create_task(
        execute(slow(0.05), ROWS, SimulatedService(), run_dir, hooks=[watch], **settings)
    )
    watch.then = running.cancel
    with pytest.raises(asyncio.CancelledError):
        await running
    kept = lines(run_dir)
    assert 8 <= len(kept) < 60
    return kept


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"in_flight": 30, "partitions": 3, "peers": 3},
        {"placement": "spread", "peers": 1, "partitions": 2},
    ],
    ids=["same", "wider", "spread"],
)
async def test_an_aborted_run_goes_on(engine: str, change: dict[str, Any], tmp_path: Path) -> None:
    shape: dict[str, Any] = {"engine": engine, "in_flight": 8, "shards": 2}
    kept = await break_off(tmp_path / "run", **shape)
    first = json.loads((tmp_path / "run" / "summary.json").read_text())
    watch = Watch()
    done = await execute(
        slow(0.05), ROWS, SimulatedService(), tmp_path / "run", hooks=[watch], **{**shape, **change}
    )
    assert [row["id"] for row in done.rows] == IDS
    after = lines(tmp_path / "run")
    assert {id: after[id] for id in kept} == kept
    assert done.summary["outcomes"] == {"completed": 60}
    assert (first["sessions"], done.summary["sessions"]) == (1, 2)
    assert done.summary["wall_seconds"] > first["wall_seconds"]
    assert done.summary["cpu_seconds"] > first["cpu_seconds"]
    assert min(watch.views) == 1_000_001
    assert {name.rpartition(".")[2] for name in watch.members} == {"1000001"}
    assert f"continuing the run in {tmp_path / 'run'}, session 2" in watch.notices
    assert watch.seen[0].earlier_seconds > 0
    if not change:  # the others may be over before a second snapshot
        assert watch.seen[-1].earlier_rows == len(kept)
    attempts = {row["provenance"]["attempt"] // 1_000_000 for row in done.rows}
    assert attempts == {0, 1}


class NotToBeStarted(SimulatedService):
    async def start(self, *_: Any) -> Any:
        raise AssertionError("a model was started")


async def test_a_finished_run_has_nothing_to_do(engine: str, tmp_path: Path) -> None:
    first = await execute(talk(), ROWS[:5], SimulatedService(), tmp_path / "run", engine=engine)
    before = {path: path.read_bytes() for path in (tmp_path / "run").glob("*.json")}
    watch = Watch()
    again = await execute(talk(), ROWS[:5], NotToBeStarted(), tmp_path / "run", engine=engine, hooks=[watch])
    assert again.summary == first.summary
    assert watch.notices == [f"nothing to do: all 5 rows are in {tmp_path / 'run'}"]
    assert not watch.members
    assert {path: path.read_bytes() for path in before} == before
    assert not list((tmp_path / "run" / ".peerloom/journal").iterdir())


@pytest.mark.parametrize("engine", ["local"], indirect=True)  # decided before a member starts
async def test_a_changed_input_is_refused_and_says_how(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"n": 0}\n{"n": 1}\n')
    await execute(talk(), open_source(path), SimulatedService(), tmp_path / "run", engine=engine)
    path.write_text('{"n": 0}\n{"n": 22}\n')
    with pytest.raises(RunDirError) as refused:
        await execute(talk(), open_source(path), NotToBeStarted(), tmp_path / "run", engine=engine, seed=3)
    text = str(refused.value)
    assert "seed: was 0, now 3\n" in text
    assert "source.files[0].bytes: was 18, now 19\n" in text
    assert "source.files[0].digest: was" in text
    for way in ("Restore", "--fresh (fresh=True in Python)", "--run-dir, or run_dir="):
        assert way in text


async def test_the_input_may_move_and_the_limit_may_grow(engine: str, tmp_path: Path) -> None:
    path, moved = tmp_path / "q.jsonl", tmp_path / "elsewhere.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    run_dir = tmp_path / "run"
    await execute(talk(), open_source(path, limit=3), SimulatedService(), run_dir, engine=engine)
    kept = lines(run_dir)
    path.rename(moved)
    for limit, rows in ((7, 7), (None, 60)):
        source = open_source(moved, limit=limit)
        done = await execute(talk(), source, SimulatedService(), run_dir, engine=engine)
        assert [row["id"] for row in done.rows] == IDS[:rows]
    assert {id: lines(run_dir)[id] for id in kept} == kept
    with pytest.raises(RunDirError, match="limit: was all, now 7: it may grow, but not shrink"):
        await execute(talk(), open_source(moved, limit=7), SimulatedService(), run_dir, engine=engine)


@pytest.mark.parametrize("engine", ["local"], indirect=True)  # decided before a member starts
async def test_a_run_without_a_row_may_be_another_one(engine: str, tmp_path: Path) -> None:
    class Broken(SimulatedService):
        async def start(self, *_: Any) -> Any:
            raise ServiceError("no such model")

    with pytest.raises(ServiceError, match="no such model"):
        await execute(talk(), ROWS, Broken(), tmp_path / "run", engine=engine, seed=1)
    done = await execute(talk(), ROWS[:2], SimulatedService(), tmp_path / "run", engine=engine, seed=2)
    assert done.summary["outcomes"] == {"completed": 2}
    assert done.summary["sessions"] == 1


async def test_a_session_that_fails_at_its_start_leaves_the_figures(engine: str, tmp_path: Path) -> None:
    class Broken(SimulatedService):
        async def start(self, *_: Any) -> Any:
            raise ServiceError("no such model")

    kept = await break_off(tmp_path / "run", engine=engine, in_flight=8)
    with pytest.raises(ServiceError):
        await execute(slow(0.05), ROWS, Broken(), tmp_path / "run", engine=engine)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["outcomes"] == {"completed": len(kept)}
    assert summary["sessions"] == 2


async def test_failed_rows_are_done_again(engine: str, tmp_path: Path) -> None:
    run_dir, broken = tmp_path / "run", tmp_path / "broken"
    broken.touch()
    given: dict[str, Any] = {"engine": engine, "shards": 2}
    first = await execute(asking(broken), ROWS, ScriptedService(unreliable), run_dir, **given)
    assert first.summary["outcomes"] == {"completed": 30, "filtered": 10, "failed": 20}
    kept = {id: line for id, line in lines(run_dir).items() if json.loads(line)["outcome"] != "failed"}
    broken.unlink()
    # Without being asked to, a resumed run leaves them as they are.
    again = await execute(asking(broken), ROWS, ScriptedService(unreliable), run_dir, **given)
    assert again.summary == first.summary
    watch = Watch()
    done = await execute(
        asking(broken),
        ROWS,
        ScriptedService(unreliable),
        run_dir,
        retry_failed=True,
        hooks=[watch],
        **given,
    )
    assert "20 failed tasks are done again" in watch.notices
    assert [row["id"] for row in done.rows] == IDS
    assert done.summary["outcomes"] == {"completed": 45, "filtered": 15}
    assert done.summary["reasons"] == {"dull": 15}
    assert done.summary["llm_calls"] == done.summary["agents"]["ask"]["turns"] == 60
    after = lines(run_dir)
    assert {id: after[id] for id in kept} == kept


async def test_a_sink_of_a_killed_session_writes_no_more(engine: str, tmp_path: Path) -> None:
    """Processes live on for seconds after their driver; one of those is played here."""
    run_dir = tmp_path / "run"
    kept = await break_off(run_dir, engine=engine, in_flight=8)
    zombie = ShardFiles.take(run_dir, 0, 5)
    zombie.commit([Row(TaskId(0, 59, 0), "completed", "", b'{"id":"0-59-0","outcome":"completed"}', {})])
    done = await execute(slow(0.0), ROWS, SimulatedService(), run_dir, engine=engine)
    late = Row(TaskId(0, 58, 0), "completed", "", b'{"id":"0-58-0","outcome":"completed"}', {})
    with pytest.raises(ShardLost):
        zombie.commit([late])
    zombie.close()
    with pytest.raises(ShardLost):
        ShardFiles.take(run_dir, 0, 6)
    assert [row["id"] for row in done.rows] == IDS  # what it committed before it was fenced counts
    assert sorted(lines(run_dir)) == sorted(IDS)
    assert {id: lines(run_dir)[id] for id in kept} == kept
    assert len(list(read_rows(run_dir))) == 60


class First(SimulatedService):
    def spec(self) -> ReplicatedClientSpec:
        return replace(super().spec(), model="gpt-a")


class Second(SimulatedService):
    def spec(self) -> ReplicatedClientSpec:
        return replace(super().spec(), model="gpt-b")


async def test_another_model_at_the_same_address_is_refused_before_any_member_starts(tmp_path: Path) -> None:
    await execute(talk(), RowsSource(ROWS, limit=3), First(), tmp_path)
    watch = Watch()
    with pytest.raises(ConfigError, match=r"llm\.model: was gpt-a, now gpt-b\n"):
        await execute(talk(), RowsSource(ROWS, limit=5), Second(), tmp_path, hooks=[watch])
    assert not watch.members
    assert (await execute(talk(), RowsSource(ROWS, limit=5), First(), tmp_path)).summary["admitted"] == 5
