from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from benchmarks.harness.points import BenchError
from benchmarks.harness.run import work_in
from benchmarks.workloads import HOPS, MINI_CORAL, hops, mini_coral, plain
from peerloom.runtime.driver.run import Run
from peerloom.runtime.driver.session import Session
from peerloom.runtime.program import Program
from peerloom.runtime.services import RunServices
from peerloom.runtime.settings import RunSettings
from peerloom.services.llm.simulated.service import SimulatedService
from peerloom.sink.read import read_rows
from peerloom.sink.rundir.directory import RunDir
from peerloom.source.memory import RowsSource

TASKS = 300


async def rows_of(program: Program, source: RowsSource, path: Path) -> list[dict[str, Any]]:
    run_dir = RunDir.claim(path)
    settings = RunSettings(engine="local", in_flight=50)
    await Run(
        program, source, RunServices(SimulatedService(tokens=50)), settings, Session(run_dir), recipe="bench"
    ).execute()
    run_dir.release()
    return list(read_rows(path))


async def test_hops_has_the_shape_of_the_reference(tmp_path: Path) -> None:
    rows = await rows_of(hops.program(), HOPS.source(TASKS), tmp_path / "run")
    statements = [[turn["message"] for turn in row["turns"] if "message" in turn] for row in rows]
    assert mean(map(len, statements)) == pytest.approx(2.8, abs=0.2)
    assert all(row["timing"]["hops"] == 3 * len(said) for row, said in zip(rows, statements, strict=True))
    assert all(row["turns"][-1]["value"]["agreement"] for row in rows)
    texts = [message["content"] for said in statements for message in said]
    assert mean(map(len, texts)) == pytest.approx(hops.TEXT, rel=0.05)
    assert all(0.75 * hops.TEXT < len(text) < 1.25 * hops.TEXT for text in texts)
    assert len(set(texts)) > 0.9 * len(texts)


async def test_a_task_makes_one_hop_more_than_it_has_turns(tmp_path: Path) -> None:
    rows = await rows_of(hops.program(), HOPS.source(TASKS), tmp_path / "run")
    work = work_in(tmp_path / "run", TASKS)
    assert work.hops == sum(len(row["turns"]) + 1 for row in rows)
    tick = 0.02  # a file's time is that of the kernel's last tick, so up to one earlier
    assert work.seconds + tick >= max(row["timing"]["finished"] for row in rows) - min(
        row["timing"]["started"] for row in rows
    )


async def test_a_run_that_lacks_rows_is_no_measurement(tmp_path: Path) -> None:
    await rows_of(hops.program(), HOPS.source(20), tmp_path / "run")
    with pytest.raises(BenchError, match="21 tasks gave 20 rows, 20 of them completed"):
        work_in(tmp_path / "run", 21)


async def test_calls_makes_six_calls_and_three_matches_a_task(tmp_path: Path) -> None:
    rows = await rows_of(mini_coral.program(), MINI_CORAL.source(20), tmp_path / "run")
    for row in rows:
        assert row["outcome"] == "completed"
        assert row["usage"]["calls"] == mini_coral.CALLS
        assert [turn["agent"] for turn in row["turns"]] == [
            *("teacher", "extractor", "matcher"),
            *("student", "extractor", "matcher"),
            *("teacher", "extractor", "matcher"),
        ]
        first, _, _, second, _, _, third, *_ = (
            turn.get("usage", {}).get("prompt", 0) for turn in row["turns"]
        )
        assert first < second < third  # the conversation so far is sent each time


async def test_a_talk_is_of_so_many_characters_and_never_the_same(tmp_path: Path) -> None:
    source = RowsSource([{"number": number} for number in range(20)])
    rows = await rows_of(plain.talk(4, 300, ""), source, tmp_path / "run")
    said = [turn["message"]["content"] for row in rows for turn in row["turns"]]
    assert len(said) == len(set(said)) == 4 * 20
    assert {len(text) for text in said} == {300}
    assert [turn["agent"] for turn in rows[0]["turns"]] == ["one", "other"] * 2
