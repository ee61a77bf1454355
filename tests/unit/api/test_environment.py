"""What surrounds a run may be missing, closed or hostile: it starts all the same, or says why not."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import peerloom
from peerloom import FunctionAgent, Sequence
from peerloom.errors import EngineError, RunDirError, ServiceError, SourceError
from peerloom.events import Hooks, Starting
from peerloom.services.llm.hosted.providers import OpenAIService
from peerloom.task import Task

ROWS = [{"n": number} for number in range(3)]


def number(task: Task) -> int:
    return task.input["n"]


def run(run_dir: Path, fn: Any = number, **options: Any) -> peerloom.RunResult:
    given = {"source": ROWS, "llm": "simulated", "progress": False, **options}
    agents = {"a": FunctionAgent(fn), "b": FunctionAgent(number)}
    return peerloom.run(workflow=Sequence("a", "b"), agents=agents, engine="local", run_dir=run_dir, **given)


@pytest.mark.parametrize("there", [False, True])
def test_a_start_that_fails_leaves_no_directory(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "runs").mkdir()
    nobody = OpenAIService(base_url="http://127.0.0.1:9/v1", model="m")
    with pytest.raises(ServiceError):
        run(tmp_path / "runs" / "deep" / "run", llm=nobody)
    assert [path.name for path in tmp_path.iterdir()] == (["runs"] if there else [])
    with pytest.raises(SourceError, match="no rows"):
        run(tmp_path / "runs" / "run", source=[])
    assert not (tmp_path / "runs" / "run").exists()


def test_a_file_of_somebody_elses_outlives_a_start_that_fails(tmp_path: Path) -> None:
    class Writes(Hooks):
        def starting(self, event: Starting) -> None:
            (tmp_path / "run" / "mine.txt").write_text("mine")

    nobody = OpenAIService(base_url="http://127.0.0.1:9/v1", model="m")
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:9"):
        run(tmp_path / "run", llm=nobody, hooks=[Writes()])
    assert (tmp_path / "run" / "mine.txt").read_text() == "mine"
    (tmp_path / "run" / "mine.txt").unlink()
    assert run(tmp_path / "run", fresh=True).how == "finished", "it was released"


def test_a_directory_with_rows_outlives_a_start_that_fails(tmp_path: Path) -> None:
    run(tmp_path / "run")
    nobody = OpenAIService(base_url="http://127.0.0.1:9/v1", model="m")
    with pytest.raises((ServiceError, RunDirError)):
        run(tmp_path / "run", llm=nobody, source=[*ROWS, {"n": 9}])
    assert len(list(run(tmp_path / "run").rows())) == 3


def test_progress_and_warnings_are_shown_unless_told_otherwise(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails(task: Task) -> int:
        return 1 // task.input["n"]

    run(tmp_path / "shown", fails, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "starting the peers" in err
    assert "1 of 3 tasks failed (agent_error 1)" in err
    run(tmp_path / "silent", fails)
    assert capfd.readouterr() == ("", "")


def test_progress_is_the_default(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    agents = {"a": FunctionAgent(number)}
    peerloom.run(
        workflow=Sequence("a"),
        agents=agents,
        engine="local",
        source=ROWS,
        llm="simulated",
        run_dir=tmp_path / "run",
    )
    assert "starting the peers" in capfd.readouterr().err


def test_an_agent_that_cancels_all_tasks_is_told_of(tmp_path: Path) -> None:
    async def cancel(task: Task) -> int:
        for each in asyncio.all_tasks():
            each.cancel()
        await asyncio.sleep(0)
        return 1

    with pytest.raises(EngineError, match="cancelled by code in its own process"):
        run(tmp_path / "run", cancel, source=ROWS[:1])


def test_what_an_agent_does_to_the_input_is_not_in_the_row(tmp_path: Path) -> None:
    def change(task: Task) -> int:
        task.input["more"] = task.input["n"] = 7
        return 1

    rows = list(run(tmp_path / "run", change).rows())
    assert sorted(row["input"]["n"] for row in rows) == [0, 1, 2]
    assert not any("more" in row["input"] for row in rows)


def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match=r"run\\udcff is not UTF-8"):
        run(tmp_path / "run\udcff")
    (tmp_path / "q\udcff.jsonl").write_text('{"n": 1}\n')
    (tmp_path / "d\udcff.txt").write_text("text")
    with pytest.raises(SourceError, match=r"q\\udcff.jsonl is not UTF-8"):
        run(tmp_path / "run", source=str(tmp_path / "*.jsonl"))
    with pytest.raises(SourceError, match=r"d\\udcff.txt is not UTF-8"):
        run(tmp_path / "run", source=str(tmp_path), config={"source.format": "text"})
    assert not (tmp_path / "run").exists()


SCRIPT = """
import sys, peerloom
from peerloom import FunctionAgent, Sequence
done = peerloom.run(workflow=Sequence("a"), agents={"a": FunctionAgent(lambda task: 1)}, source=[{"n": 1}],
                    llm="simulated", engine="local", run_dir=sys.argv[1])
assert done.how == "finished"
"""


@pytest.mark.parametrize("redirected", [">&- 2>&- <&-", "> /dev/full 2>&1", "2>&1 | true"])
def test_closed_and_full_streams_end_nothing(tmp_path: Path, redirected: str) -> None:
    command = f'set -o pipefail; "$0" -c "$1" "$2" {redirected}'
    words = ["bash", "-c", command, sys.executable, SCRIPT, str(tmp_path / "run")]
    assert subprocess.run(words, check=False).returncode == 0
    assert (tmp_path / "run" / "data" / "part-000-0001-0000.jsonl").read_text().count("\n") == 1
