"""A session that goes on reads the rows that are missing, and not the others."""

import asyncio
import json
from pathlib import Path

import pytest
from programs import OneRowThenGone, slow

from peerloom.events import Hooks, Progress
from peerloom.services.llm.simulated.service import SimulatedService
from peerloom.source.open import open_source
from peerloom.source.parts.json_lines import JsonlPart
from peerloom.source.storage.files import local_file
from peerloom.testing import execute

BLANK = {3, 4, 20, 39}
IDS = [f"0-{row}-{trial}" for row in range(40) if row not in BLANK for trial in range(2)]
SHAPE = {"in_flight": 9, "partitions": 3, "shards": 2, "trials": 2}


class BreakOff(Hooks):
    """Cancels a run once its rows are counted and some are committed."""

    running: asyncio.Task[object]

    def progress(self, event: Progress) -> None:
        if event.total == len(IDS) and sum(event.outcomes.values()) >= 8:
            self.running.cancel()


async def a_broken_run(folder: Path, engine: str) -> tuple[Path, dict[str, str]]:
    """The input of a run that was broken off, and its rows by id."""
    path = folder / "q.jsonl"
    path.write_text("".join("\n" if row in BLANK else f'{{"n": {row}}}\n' for row in range(40)))
    watch = BreakOff()
    watch.running = asyncio.create_task(
        execute(
            slow(0.05),
            open_source(path),
            SimulatedService(),
            folder / "run",
            engine=engine,
            hooks=[watch],
            **SHAPE,
        )
    )
    with pytest.raises(asyncio.CancelledError):
        await watch.running
    kept = lines(folder / "run")
    assert 8 <= len(kept) < len(IDS)
    return path, kept


def lines(run_dir: Path) -> dict[str, str]:
    """Every row on disk by its id, as it is written."""
    rows = [line for part in run_dir.glob("data/part-*") for line in part.read_text().splitlines()]
    found = {json.loads(line)["id"]: line for line in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.parametrize("engine", ["local"], indirect=True)
async def test_only_missing_rows_are_read(engine: str, tmp_path: Path) -> None:
    path, kept = await a_broken_run(tmp_path, engine)
    done = await execute(
        slow(0.01),
        OneRowThenGone([JsonlPart(local_file(str(path)))]),
        SimulatedService(),
        tmp_path / "run",
        engine=engine,
        **SHAPE,
    )
    assert [row["id"] for row in done.rows] == IDS
    assert [row["input"]["n"] for row in done.rows] == [int(id.split("-")[1]) for id in IDS]
    after = lines(tmp_path / "run")
    assert {id: after[id] for id in kept} == kept


@pytest.mark.parametrize(
    ("engine", "damage"),
    [
        ("local", "missing"),
        ("local", "cut"),
        ("local", "flipped"),
        pytest.param("ray", "flipped", marks=pytest.mark.slow),
    ],
    indirect=["engine"],
)
async def test_bad_positions_are_made_anew(engine: str, tmp_path: Path, damage: str) -> None:
    path, kept = await a_broken_run(tmp_path, engine)
    positions = tmp_path / "run" / ".peerloom/input.pos"
    whole = positions.read_bytes()
    positions.write_bytes(whole[:-40] if damage == "cut" else bytes([whole[0] ^ 1]) + whole[1:])
    if damage == "missing":
        positions.unlink()
    done = await execute(
        slow(0.01), open_source(path), SimulatedService(), tmp_path / "run", engine=engine, **SHAPE
    )
    assert [row["id"] for row in done.rows] == IDS
    after = lines(tmp_path / "run")
    assert {id: after[id] for id in kept} == kept
    assert positions.read_bytes() == whole
