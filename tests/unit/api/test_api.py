import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

import peerloom
from peerloom import ConfigError, FunctionAgent, LLMAgent, Loop, Sequence, Task, WorkflowError

ROWS = [{"n": number} for number in range(5)]


def double(task: Task) -> int:
    return 2 * task.input["n"]


def pipeline(tmp_path: Path, **options: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "workflow": Sequence("doubler"),
        "agents": {"doubler": FunctionAgent(double)},
        "source": ROWS,
        "llm": ["unused"],
        "engine": "local",
        "run_dir": tmp_path / "run",
    }
    return given | options


def test_own_workflow_over_own_rows(tmp_path: Path) -> None:
    result = peerloom.run(**pipeline(tmp_path))
    assert sorted(row["result"] for row in result) == [0, 2, 4, 6, 8]
    assert len(result) == 5
    assert (result.how, result.run_dir) == ("finished", tmp_path / "run")
    assert result.summary["outcomes"] == {"completed": 5}
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == result.summary


async def test_in_a_running_loop_both_doors_work(tmp_path: Path) -> None:
    awaited = await peerloom.arun(**pipeline(tmp_path, run_dir=tmp_path / "a"))
    threaded = peerloom.run(**pipeline(tmp_path, run_dir=tmp_path / "b"))
    assert len(awaited) == len(threaded) == 5


def test_a_recipe_by_name_with_its_sample(tmp_path: Path) -> None:
    result = peerloom.run(
        "coral", llm="simulated", engine="local", limit=2, trials=2, seed=3, run_dir=tmp_path / "run",
        config={"recipe.max_rounds": 1, "llm.tokens": 20},
    )  # fmt: skip
    rows = list(result.rows(rejected=True))
    assert {row["id"] for row in rows} == {"0-0-0", "0-0-1", "0-1-0", "0-1-1"}
    assert max(len(row["turns"]) for row in rows) <= 6


def test_rejected_rows_are_there_when_asked_for(tmp_path: Path) -> None:
    def picky(task: Task) -> int:
        if task.input["n"] == 3:
            raise ValueError("no threes")
        return task.input["n"]

    result = peerloom.run(**pipeline(tmp_path, agents={"doubler": FunctionAgent(picky)}))
    assert len(result) == 4
    assert [row["outcome"] for row in result.rows(rejected=True)].count("failed") == 1


def test_a_script_is_a_list_or_a_function(tmp_path: Path) -> None:
    def parrot(request: peerloom.ChatRequest) -> str:
        return request.messages[-1]["content"]

    asking = {"doubler": LLMAgent("say {{ input.n }}")}
    given = pipeline(tmp_path, agents=asking, llm=parrot, limit=1, run_dir=tmp_path / "a")
    assert next(iter(peerloom.run(**given)))["messages"][-1]["content"] == "say 0"
    given = pipeline(tmp_path, agents=asking, llm=["one"], limit=1, run_dir=tmp_path / "b")
    assert next(iter(peerloom.run(**given)))["messages"][-1]["content"] == "one"


def test_a_source_by_path_and_as_an_object(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('{"n": 1}\n{"n": 2}\n')
    for number, source in enumerate([file, [file], peerloom.open_source(file), (row for row in ROWS[:2])]):
        result = peerloom.run(**pipeline(tmp_path, source=source, run_dir=tmp_path / str(number)))
        assert len(result) == 2


def test_the_default_run_directory_is_named_after_recipe_and_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = pipeline(tmp_path)
    del given["run_dir"]
    result = peerloom.run(**given)
    assert result.run_dir.parent == tmp_path / "runs"
    assert result.run_dir.name.startswith("workflow-20")


def test_run_yaml_repeats_the_run(tmp_path: Path) -> None:
    first = peerloom.run("coral", llm="simulated", engine="local", limit=2, run_dir=tmp_path / "a")
    again = peerloom.run(str(first.run_dir / "run.yaml"), run_dir=tmp_path / "b")

    def said(result: peerloom.RunResult) -> Any:
        return sorted((row["id"], row["result"]["beliefs"], row["messages"]) for row in result)

    assert said(first) == said(again)


def test_whoever_watches_hears_of_the_run(tmp_path: Path) -> None:
    class Watcher(peerloom.Hooks):
        how = ""

        def run_finished(self, event: peerloom.RunFinished) -> None:
            self.how = event.how

    watcher = Watcher()
    peerloom.run(**pipeline(tmp_path, hooks=[watcher]))
    assert watcher.how == "finished"
    assert '"run_finished"' in (tmp_path / "run" / "log.jsonl").read_text()


def test_progress_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peerloom.run(**pipeline(tmp_path, progress=True, llm="simulated"))
    out, err = capsys.readouterr()
    assert out == ""
    assert "simulated model" in err


WRONG: list[tuple[Callable[[dict[str, Any]], Any], type[Exception], str]] = [
    (lambda given: given | {"lmit": 3}, ConfigError, "no option 'lmit'. Did you mean 'limit'"),
    (lambda given: given | {"limit": "abc"}, ConfigError, "limit=abc: must be a whole number"),
    (lambda given: given | {"config": {"llm.latency": 1}}, ConfigError, "llm.latency and a model object"),
    (
        lambda given: given | {"llm": "simulated", "config": {"llm.latncy": 1}},
        ConfigError,
        "Did you mean 'llm.latency'",
    ),
    (lambda given: given | {"engine": "ray"}, ConfigError, "a list of replies .* needs engine=local"),
    (lambda given: given | {"recipe": "coral"}, ConfigError, "'coral' and workflow= were both given"),
    (lambda given: given | {"agents": None}, ConfigError, "belong together"),
    (lambda given: given | {"agents": {"doubler": double}}, WorkflowError, r"FunctionAgent\(function\)"),
    (lambda given: given | {"agents": {}}, WorkflowError, "role 'doubler'"),
    (lambda given: given | {"source": ["q.jsonl", {"n": 1}]}, ConfigError, "mixes paths and rows"),
    (
        lambda given: given | {"source": peerloom.RowsSource(ROWS), "limit": 1},
        ConfigError,
        "settings of the source object itself",
    ),
    (
        lambda given: given | {"config": {"source.field": "n"}},
        ConfigError,
        "source.field and source.format are for source.path",
    ),
    (lambda given: given | {"llm": "gpt"}, ConfigError, "llm=gpt: there is no such llm"),
    (lambda given: {"engine": "local"}, ConfigError, "no recipe is named"),
]


@pytest.mark.parametrize(("change", "kind", "message"), WRONG)
def test_what_cannot_run_is_refused_before_anything_starts(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        peerloom.run(**change(pipeline(tmp_path)))
    assert not (tmp_path / "run").exists()


def test_the_run_yaml_of_a_python_workflow_says_where_it_can_be_repeated(tmp_path: Path) -> None:
    result = peerloom.run(**pipeline(tmp_path))
    with pytest.raises(ConfigError, match=r"given in Python can only be repeated there"):
        peerloom.run(str(result.run_dir / "run.yaml"))


def test_the_same_run_again_goes_on_and_fresh_replaces_it(tmp_path: Path) -> None:
    first = peerloom.run(**pipeline(tmp_path, limit=2))
    again = peerloom.run(**pipeline(tmp_path, limit=2))
    assert (again.how, again.summary) == ("finished", first.summary)
    grown = peerloom.run(**pipeline(tmp_path, in_flight=3))
    assert (len(grown), grown.summary["sessions"]) == (5, 2)
    assert len(peerloom.run(**pipeline(tmp_path, fresh=True, limit=1))) == 1


CHANGED: list[tuple[dict[str, Any], str]] = [
    ({"source": [*ROWS[:4], {"n": 9}]}, 'source.digest: was "'),
    ({"seed": 3}, "seed: was 0, now 3"),
    ({"limit": 2}, "limit: was all, now 2: it may grow, but not shrink"),
    ({"llm": "simulated"}, 'llm: was "ScriptedService", now not there'),
    (
        {"workflow": Sequence("other"), "agents": {"other": FunctionAgent(double)}},
        "+++ agent other (now)\n",
    ),
    ({"agents": {"doubler": FunctionAgent(lambda task: 3)}}, "--- agent doubler (was)\n"),
    ({"config": {"shards": 2}}, "shards: was 1, now 2"),
]


@pytest.mark.parametrize(("change", "told"), CHANGED)
def test_another_run_in_the_directory_is_refused(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    peerloom.run(**pipeline(tmp_path))
    with pytest.raises(peerloom.RunDirError) as refused:
        peerloom.run(**pipeline(tmp_path, **change))
    assert told in str(refused.value)
    assert "fresh=True" in str(refused.value)
    assert "run_dir=" in str(refused.value)


def test_failed_rows_are_done_again_when_asked(tmp_path: Path) -> None:
    def picky(task: Task) -> int:
        return 1 // task.input["n"]

    failed = peerloom.run(**pipeline(tmp_path, agents={"doubler": FunctionAgent(picky)}))
    assert failed.summary["outcomes"] == {"completed": 4, "failed": 1}
    with pytest.raises(peerloom.RunDirError, match=r"(?s)program: was \w+, now \w+\n.*accept_program=True"):
        peerloom.run(**pipeline(tmp_path))
    assert len(peerloom.run(**pipeline(tmp_path, accept_program=True))) == 4
    assert len(peerloom.run(**pipeline(tmp_path, accept_program=True, retry_failed=True))) == 5


def test_a_source_that_describes_itself_with_a_secret_is_refused(tmp_path: Path) -> None:
    class Telling(peerloom.RowsSource):
        def fingerprint(self) -> dict[str, Any]:
            return {"url": "postgres://me:hunter2@host/db"}

    with pytest.raises(ConfigError, match=r"source\.url holds what looks like a secret") as refused:
        peerloom.run(**pipeline(tmp_path, source=Telling(ROWS)))
    assert "hunter2" not in str(refused.value)
    assert not any("hunter2" in path.read_text() for path in (tmp_path / "run").glob("*.*"))


def test_a_loop_that_ends_by_its_rounds(tmp_path: Path) -> None:
    loop = Loop("doubler", until=lambda task: False, max_rounds=3)
    result = peerloom.run(**pipeline(tmp_path, workflow=loop))
    assert all(len(row["turns"]) == 3 for row in result)


def test_the_run_in_a_notebook_has_a_thread_of_its_own(tmp_path: Path) -> None:
    seen: set[str] = set()

    def note(task: Task) -> None:
        seen.add(threading.current_thread().name)

    async def notebook() -> None:
        await asyncio.sleep(0)
        peerloom.run(**pipeline(tmp_path, agents={"doubler": FunctionAgent(note)}))

    asyncio.run(notebook())
    assert all(name.startswith("peerloom") for name in seen)
    assert seen


async def test_a_cancellation_ends_the_export_and_waits_for_it(tmp_path: Path, monkeypatch) -> None:
    began, ended = threading.Event(), threading.Event()

    def export(run_dir: Path, format: str, on_row: Callable[[], None]) -> None:
        began.set()
        try:
            while True:
                on_row()
        finally:
            ended.set()

    monkeypatch.setattr("peerloom.api.runner.export_all", export)
    run = asyncio.create_task(peerloom.arun(**pipeline(tmp_path, config={"sink.format": "parquet"})))
    await asyncio.to_thread(began.wait)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert ended.is_set()
    assert len(list(peerloom.read_rows(tmp_path / "run"))) == 5


def test_a_row_tells_how_it_was_made(tmp_path: Path) -> None:
    def made(name: str, config: dict[str, Any], **options: Any) -> dict[str, Any]:
        result = peerloom.run(
            "coral",
            llm="simulated",
            engine="local",
            limit=1,
            run_dir=tmp_path / name,
            config={"source.license": "cc-by-4.0", **config},
            **options,
        )
        (row,) = result
        return row["provenance"]

    first = made("first", {})
    assert first["models"] == {"llm": {"provider": "simulated", "model": "simulated"}}
    assert first["prompts"].keys() == {"teacher", "student", "extractor"}
    assert (first["license"], first["seed"]) == ("cc-by-4.0", 0)
    moved = made("moved", {}, in_flight=2)
    assert {**moved, "run": "first"} == first
    other = made("other", {"recipe.max_rounds": 2}, seed=7)
    assert other["seed"] == 7
    assert other["prompts"] == first["prompts"]
    assert other["program"] != first["program"]
    assert other["config"] != first["config"]
    assert len(orjson.dumps(first)) < 400
