"""The contract of every exporter: those of Peerloom, found by their files, and a user's own one."""

import asyncio
import csv
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import atif
import pyarrow.json
import pyarrow.parquet as pq
import pytest

import peerloom
from peerloom.errors import ConfigError
from peerloom.events import Hooks, Progress
from peerloom.runtime.program import Program
from peerloom.services.llm.base import ChatReply, ChatRequest
from peerloom.services.llm.scripted import ScriptedService
from peerloom.sink.export.exporter import EXPORTERS, find_exporter
from peerloom.sink.export.groups import ALONE
from peerloom.sink.export.writer import Selection, export
from peerloom.sink.read import read_rows
from peerloom.testing import execute

OWN = """
import csv

class Csv:
    suffix = ".csv"

    def write(self, rows, target):
        with target.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "outcome"])
            writer.writerows([row["id"], row["outcome"]] for row in rows)
        return []

not_one = 3
"""
ODD = 'Öl? "日本" \u202e\x00\U0001f600\n\\"'
"""A text with every kind of character that a format could break."""
ROWS = [{"n": number, "question": f"#{number}: {ODD}"} for number in range(24)]
LOOK_UP = {
    "type": "function",
    "function": {"name": "look_up", "parameters": {"type": "object", "properties": {"q": {}}}},
}

Records = list[dict[str, Any]]


def _csv(path: Path) -> Records:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _jsonl(path: Path) -> Records:
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


READERS: dict[str, Callable[[Path], Records]] = {
    ".jsonl": _jsonl,
    ".parquet": lambda path: pq.read_table(path).to_pylist(),
    ".csv": _csv,
}
"""How a file is read, by the end of its exporter's suffix."""
FORMATS = [*sorted(EXPORTERS.names()), "exporter_of_mine.py:Csv"]
GROUPED = ("dpo", "grpo")
"""The exporters whose records are made from several answers."""

every_exporter = pytest.mark.parametrize("name", FORMATS)


def load(path: Path, name: str) -> Records:
    suffix = find_exporter(name).suffix
    return READERS[f".{suffix.rpartition('.')[2]}"](path)


def has_assistant(name: str) -> bool:
    return hasattr(find_exporter(name), "assistant")


@pytest.fixture(autouse=True, scope="module")
def exporter_of_mine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("mine")
    (folder / "exporter_of_mine.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


def reply(request: ChatRequest) -> ChatReply | str:
    """Call a tool for every third question, once; the answers are the longer, the later the trial."""
    last = request.messages[-1]
    if request.tools and last["role"] == "user" and int(last["content"][1:].partition(":")[0]) % 3 == 0:
        arguments = json.dumps({"q": ODD})
        call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": arguments}}
        return ChatReply(text="", tool_calls=[call], finish_reason="tool_calls")
    return f"{ODD} {request.seed}"


def look_up(task: peerloom.Task) -> peerloom.Turn:
    message = (task.turns[-1].message or {}) if task.turns else {}
    if not message.get("tool_calls"):
        return peerloom.Turn("", value=None)
    found = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": ODD}
    return peerloom.Turn("", found)


def graded() -> Program:
    """Writes an answer, with a tool for some rows, and scores it; one of six tasks is filtered."""
    writer = peerloom.LLMAgent(
        system="Be kind.", opening="{{ input.question }}", dialogue=True, tools=[LOOK_UP], tool_choice="auto"
    )

    def score(task: peerloom.Task) -> Any:
        if task.input["n"] % 6 == 5:
            return peerloom.Turn("", end=peerloom.End("filtered", "dull"))
        return {"score": task.id.trial + 1, "why": ODD}

    agents = {"writer": writer, "look_up": peerloom.FunctionAgent(look_up)}
    judge = {"judge": peerloom.FunctionAgent(score)}
    workflow = peerloom.Sequence("writer", "look_up", "writer", "judge")
    return Program(workflow, agents | judge)


class Stall(Hooks):
    """A model that answers a number of requests and then no more, which ends the session."""

    def __init__(self, answers: int) -> None:
        self.left = answers
        self.running: asyncio.Task[Any] | None = None

    async def reply(self, request: ChatRequest) -> ChatReply | str:
        self.left -= 1
        if self.left < 0:
            await asyncio.Event().wait()
        return reply(request)

    def progress(self, event: Progress) -> None:
        if self.running and self.left < 0 and sum(event.outcomes.values()):
            self.running.cancel()


async def in_sessions(run_dir: Path, *answers: int) -> None:
    """Run the program in several sessions, all but the last one broken off after some answers."""
    for number in answers:
        stall = Stall(number)
        model = ScriptedService(stall.reply)
        session = execute(graded(), ROWS, model, run_dir, hooks=[stall], trials=2, in_flight=6)
        stall.running = asyncio.create_task(session)
        with pytest.raises(asyncio.CancelledError):
            await stall.running
    await execute(graded(), ROWS, ScriptedService(reply), run_dir, trials=2)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 input rows with two trials each, in three sessions, and eight filtered tasks."""
    path = tmp_path_factory.mktemp("runs") / "graded"
    asyncio.run(in_sessions(path, 30, 30))
    return path


@every_exporter
def test_every_committed_row_is_written_once(run_dir: Path, tmp_path: Path, name: str) -> None:
    rows = list(read_rows(run_dir, rejected=False))
    assert {row["provenance"]["attempt"] // 1_000_000 for row in rows} == {0, 1, 2}, "of three sessions"
    (written,) = export(run_dir, tmp_path / "rows.any", format=name)
    assert (written.rows, written.skipped) == (20 if name in GROUPED else 40, {})
    records = load(written.path, name)
    assert len(records) == written.rows
    if "id" in records[0]:
        assert [record["id"] for record in records] == [row["id"] for row in rows]
    if has_assistant(name):
        texts = [json.dumps(record) for record in records]
        assert all(json.dumps(ODD)[1:-1] in text for text in texts)
        assert sum("tool_calls" in text or "function_call" in text for text in texts) == written.rows * 2 // 5
    (rejected,) = export(run_dir, tmp_path / "others", format=name, select=Selection(rejected=True))
    assert rejected.rows + sum(rejected.skipped.values()) == 8, "skipped are those without a score"


@every_exporter
def test_arrow_loads_the_file(run_dir: Path, tmp_path: Path, name: str) -> None:
    if not has_assistant(name):
        pytest.skip("rows as they are, or a format of its own")
    (written,) = export(run_dir, tmp_path / "rows.jsonl", format=name)
    table = pyarrow.json.read_json(written.path)
    assert table.num_rows == written.rows


@pytest.mark.slow
@every_exporter
def test_datasets_loads_the_file(run_dir: Path, tmp_path: Path, name: str) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra `datasets`")
    if not has_assistant(name) and name != "parquet":
        pytest.skip("rows as they are, or a format of its own")
    (written,) = export(run_dir, tmp_path / "rows.any", format=name)
    kind = "parquet" if name == "parquet" else "json"
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset(kind, data_files=str(written.path), split="train", cache_dir=cache)
    assert len(loaded) == written.rows


@every_exporter
def test_the_selected_rows_are_written(run_dir: Path, tmp_path: Path, name: str) -> None:
    where = 'input.n < 2 and outcome == "completed" and messages[1].role == "user"'
    (few,) = export(run_dir, tmp_path / "few", format=name, select=Selection(where=where))
    assert few.rows == (2 if name in GROUPED else 4)
    with pytest.raises(ConfigError, match=r"none was not written, because no completed row .* is selected"):
        export(run_dir, tmp_path / "none", format=name, select=Selection(where="input.n > 99"))


@every_exporter
def test_an_existing_file_stays(run_dir: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / "rows.any"
    target.write_text("old")
    with pytest.raises(ConfigError, match=r"rows\.any exists already: .*--force"):
        export(run_dir, target, format=name)
    steps = [1, 2]
    with pytest.raises(IndexError):
        export(run_dir, target, format=name, on_row=steps.pop, select=Selection(force=True))
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["rows.any"]
    (written,) = export(run_dir, target, format=name, select=Selection(force=True))
    assert len(load(target, name)) == written.rows


@every_exporter
def test_the_trials_of_an_input_row_are_in_one_part(run_dir: Path, tmp_path: Path, name: str) -> None:
    split = Selection(test_fraction=0.4)
    parts = export(run_dir, tmp_path / "rows.any", format=name, select=split)
    assert [part.path.name for part in parts] == ["rows-train.any", "rows-test.any"]
    assert sum(part.rows for part in parts) == (20 if name in GROUPED else 40)
    assert all(len(load(part.path, name)) == part.rows > 0 for part in parts)
    questions = [
        {n for n in range(24) if f"#{n}: {json.dumps(ODD)[1:-1]}" in json.dumps(load(part.path, name))}
        for part in parts
    ]
    assert not questions[0] & questions[1]
    if name not in GROUPED:
        assert all(part.rows % 2 == 0 for part in parts)


@every_exporter
def test_a_run_without_a_completed_row_is_no_file(tmp_path: Path, name: str) -> None:
    dull = [row for row in ROWS if row["n"] % 6 == 5]
    asyncio.run(execute(graded(), dull, ScriptedService(reply), tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"rows\.any was not written, because .* has no completed row"):
        export(tmp_path / "run", tmp_path / "rows.any", format=name)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@every_exporter
def test_a_role_that_is_not_there_is_named(run_dir: Path, tmp_path: Path, name: str) -> None:
    message = "assistant=writr: no row has a turn of that role. Did you mean 'writer'"
    if not has_assistant(name):
        message = "has no option assistant"
    with pytest.raises(ConfigError, match=message):
        export(run_dir, tmp_path / "rows.any", format=name, options={"assistant": "writr"})
    assert not list(tmp_path.iterdir())


@every_exporter
def test_a_group_of_one(run_dir: Path, tmp_path: Path, name: str) -> None:
    alone = Selection(where="trial == 0")
    if name not in GROUPED:
        assert export(run_dir, tmp_path / "rows.any", format=name, select=alone)[0].rows == 20
        return
    with pytest.raises(ConfigError, match=f"nothing is left for it: {re.escape(ALONE)}"):
        export(run_dir, tmp_path / "rows.any", format=name, select=alone)
    some = Selection(where="trial == 0 or input.n == 3")
    (written,) = export(run_dir, tmp_path / "rows.any", format=name, select=some)
    assert (written.rows, written.skipped) == (1, {ALONE: 19})


@pytest.fixture(scope="module")
def recipe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A run of a recipe of Peerloom."""
    name, options = request.param
    path = tmp_path_factory.mktemp("recipes") / name
    peerloom.run(name, llm="simulated", engine="local", seed=1, run_dir=path, progress=False, **options)
    return name, path


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(("coral", {"limit": 12, "trials": 3}), id="coral"),
        pytest.param(
            ("natural_reasoning", {"trials": 2, "config": {"recipe.min_score": 1}}),
            id="natural_reasoning",
            marks=pytest.mark.slow,
        ),
    ],
    indirect=True,
)
@every_exporter
def test_recipes_go_through_every_export_that_fits(
    recipe: tuple[str, Path], tmp_path: Path, name: str
) -> None:
    label, run_dir = recipe
    if label == "natural_reasoning" and name in GROUPED:
        pytest.skip("each trial has a question of its own, so there is nothing to compare")
    score = {"coral": "result.correct.teacher", "natural_reasoning": "result.score"}[label]
    options = {"score": score} if hasattr(find_exporter(name), "score") else {}
    (written,) = export(run_dir, tmp_path / "rows.any", format=name, options=options)
    records = load(written.path, name)
    completed = sum(1 for _ in read_rows(run_dir, rejected=False))
    assert len(records) == written.rows > 0
    assert written.rows == completed or name in GROUPED
    if name == "atif":
        for record in records:
            atif.Trajectory.model_validate(record)


@pytest.mark.parametrize("version", ["1.7", "1.8"])
def test_every_trajectory_is_valid(run_dir: Path, tmp_path: Path, version: str) -> None:
    for rejected in (False, True):
        target = tmp_path / f"{rejected}.jsonl"
        select = Selection(rejected=rejected)
        export(run_dir, target, format="atif", options={"version": version}, select=select)
        for record in _jsonl(target):
            assert atif.Trajectory.model_validate(record).schema_version == f"ATIF-v{version}"


@pytest.mark.parametrize("fresh", [False, True])
def test_a_run_leaves_a_file_of_any_exporter(tmp_path: Path, fresh: bool) -> None:
    run = partial(
        peerloom.run,
        "coral",
        llm="simulated",
        engine="local",
        limit=2,
        run_dir=tmp_path / "run",
        config={"sink.format": "exporter_of_mine.py:Csv"},
        progress=False,
    )
    run()
    again = run(fresh=fresh)
    assert {row["id"] for row in _csv(tmp_path / "run" / "data.csv")} == {row["id"] for row in again}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("parqet", r"sink.format=parqet: there is no such format. Did you mean 'parquet'\?"),
        ("exporter_of_mine.py:not_one", "is no exporter: it must be a class with `suffix` and `write`"),
        ("exporter_of_mine.py:Cvs", "cannot be imported: .*'Cvs'"),
        ("nowhere.py:Csv", r"sink.format=.*nowhere.py:Csv cannot be imported: there is no file"),
    ],
)
def test_an_exporter_that_is_not_there_is_named(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        peerloom.run(
            "coral", llm="simulated", config={"sink.format": name}, run_dir=tmp_path / "run", progress=False
        )
    assert not (tmp_path / "run").exists()
