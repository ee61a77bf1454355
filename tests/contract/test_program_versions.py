"""A run tells which version of the program made its rows, and never mixes two of them unasked."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from programs import judged, prompted

from peerloom.errors import RunDirError
from peerloom.events import Hooks, Notice, Progress
from peerloom.runtime.program import Program
from peerloom.services.llm.simulated.service import SimulatedService
from peerloom.sink.read import read_rows
from peerloom.testing import Finished, execute

NEW = "Say anything about\n{{ input.n }}."


class Until(Hooks):
    """Calls `then` once a number of turns are done; remembers notices."""

    def __init__(self, turns: int = 0) -> None:
        self.turns = turns
        self.then: Callable[[], object] | None = None
        self.notices: list[str] = []

    def notice(self, event: Notice) -> None:
        self.notices.append(event.text)

    def progress(self, event: Progress) -> None:
        if self.then is not None and event.hops >= self.turns:
            self.then()
            self.then = None


async def held_at_the_gate(engine: str, program: Program, tmp_path: Path) -> list[dict[str, Any]]:
    """A session that is broken off when row 0 is finished, and the others are at their gate; the input."""
    (tmp_path / "open").touch()
    rows = [{"n": n, "gate": str(tmp_path / ("gate" if n else "open"))} for n in range(4)]
    watch = Until(turns=3 + 3)
    running = asyncio.create_task(
        execute(program, rows, SimulatedService(), tmp_path / "run", engine=engine, hooks=[watch])
    )
    watch.then = running.cancel
    with pytest.raises(asyncio.CancelledError):
        await running
    (tmp_path / "gate").touch()
    return rows


async def test_a_changed_prompt_is_refused_with_a_diff(engine: str, tmp_path: Path) -> None:
    rows = await held_at_the_gate(engine, prompted(), tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.jsonl")}
    with pytest.raises(RunDirError) as refused:
        await execute(prompted(NEW), rows, SimulatedService(), tmp_path / "run", engine=engine)
    text = str(refused.value)
    assert "  program: was " in text
    assert "  --- agent ask (was)\n  +++ agent ask (now)\n" in text
    assert '  -prompt: "Say something about {{ input.n }}."\n' in text
    assert "  +  Say anything about\n  +  {{ input.n }}.\n" in text
    assert "--accept-program (accept_program=True in Python)" in text
    assert {path: path.read_bytes() for path in before} == before


async def go_on(engine: str, program: Program, rows: list[dict[str, Any]], tmp_path: Path) -> Finished:
    watch = Until()
    done = await execute(
        program,
        rows,
        SimulatedService(),
        tmp_path / "run",
        engine=engine,
        hooks=[watch],
        accept_program=True,
    )
    assert any("the program has changed" in text for text in watch.notices)
    return done


async def test_each_turn_tells_the_version_that_made_it(engine: str, tmp_path: Path) -> None:
    rows = await held_at_the_gate(engine, prompted(), tmp_path)
    (first,) = read_rows(tmp_path / "run")
    done = await go_on(engine, prompted(NEW), rows, tmp_path)
    assert [row["outcome"] for row in done.rows] == ["completed"] * 4
    old, new = first["provenance"]["program"], done.rows[1]["provenance"]["program"]
    assert done.rows[0] == first
    assert old != new
    assert not any("program" in turn for turn in first["turns"])
    for row in done.rows[1:]:
        assert row["provenance"]["program"] == new
        assert [turn.get("program") for turn in row["turns"]] == [old, None, None]
        asked = [turn["calls"][0]["request"]["messages"][-1]["content"] for turn in row["turns"][::2]]
        assert [text.split()[1] for text in asked] == ["something", "anything"]
    kept = {path.stem for path in (tmp_path / "run/.peerloom/program").iterdir()}
    assert kept == {old, new}
    with pytest.raises(RunDirError, match=f"program: was {new}, now {old}"):
        await execute(prompted(), rows, SimulatedService(), tmp_path / "run", engine=engine)


async def test_a_task_of_a_removed_role_ends_with_that_outcome(engine: str, tmp_path: Path) -> None:
    rows = await held_at_the_gate(engine, judged(("critic", "gate", "judge")), tmp_path)
    program = judged(("gate", "judge"))
    done = await go_on(engine, program, rows, tmp_path)
    ends = [(row["outcome"], row["reason"]) for row in done.rows]
    assert ends == [("completed", ""), *[("failed", "role_removed")] * 3]
    assert "a turn of role 'critic', which the program no longer has" in done.rows[1]["detail"]
    assert [turn["agent"] for turn in done.rows[1]["turns"]] == ["critic"]
    again = await execute(
        program, rows, SimulatedService(), tmp_path / "run", engine=engine, retry_failed=True
    )
    assert {row["outcome"] for row in again.rows} == {"completed"}
    assert [turn["agent"] for turn in again.rows[1]["turns"]] == ["gate", "judge"]


@pytest.mark.parametrize("engine", ["local"], indirect=True)  # decided before a member starts
async def test_old_rows_are_never_returned_silently(engine: str, tmp_path: Path) -> None:
    rows = [{"n": n, "gate": str(tmp_path)} for n in range(2)]
    first = await execute(prompted(), rows, SimulatedService(), tmp_path / "run", engine=engine)
    with pytest.raises(RunDirError, match="Say anything"):
        await execute(prompted(NEW), rows, SimulatedService(), tmp_path / "run", engine=engine)
    watch = Until()
    again = await execute(
        prompted(NEW), rows, SimulatedService(), tmp_path / "run", hooks=[watch], accept_program=True
    )
    assert again.rows == first.rows
    assert "made by an earlier version of the program: --fresh" in watch.notices[0]
