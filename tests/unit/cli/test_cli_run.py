import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peerloom.api import Plan, RunResult, drive
from peerloom.errors import ServiceError
from peerloom.source.memory import RowsSource

LOCAL = ("engine=local", "llm=simulated")


def test_a_run_ends_with_a_summary_and_the_path_of_the_rows(peerloom, tmp_path: Path) -> None:
    ended = peerloom("run", "coral", *LOCAL, "limit=2", "--run-dir", tmp_path / "run")
    assert ended.code == 0
    assert "completed 2" in ended.out
    assert f"2 rows in {tmp_path}/run/data/part-*.jsonl" in ended.out
    assert "simulated model" in ended.err


def test_json_is_all_there_is_on_stdout(peerloom, tmp_path: Path) -> None:
    ended = peerloom("run", "coral", *LOCAL, "limit=2", "--run-dir", tmp_path / "run", "--json", "-q")
    shown = json.loads(ended.out)
    assert (shown["run_dir"], shown["how"]) == (str(tmp_path / "run"), "finished")
    assert shown["outcomes"] == {"completed": 2}
    assert ended.err == ""


def test_the_default_run_directory(peerloom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = peerloom("run", "coral", *LOCAL, "limit=1", "-q")
    assert ended.code == 0
    (made,) = (tmp_path / "runs").iterdir()
    assert ended.err == f"run directory: runs/{made.name}\n"
    assert re.fullmatch(r"coral-\d{8}-[0-9a-f]{6}", made.name)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["llm=llamacp"], "error: llm=llamacp: there is no such llm. Did you mean 'llamacpp'?"),
        (["lmit=20"], "error: lmit=20: there is no key 'lmit'. Did you mean 'limit'?"),
        (["limit=abc"], "error: limit=abc: must be a whole number."),
        (["source.pth=q.jsonl"], "error: source.pth=q.jsonl: there is no key 'source.pth'. Did you mean"),
        (
            ["llm.modle=x"],
            "error: llm.modle=x: llm=llamacpp has no key 'llm.modle'. Did you mean 'llm.model'?",
        ),
        (["recipe.max_round=2"], "Did you mean 'recipe.max_rounds'?"),
        (["placement=packt"], "error: placement=packt: must be 'packed' or 'spread'. Did you mean 'packed'?"),
        (["source.path=none.jsonl"], "none.jsonl"),
        (["llm=scripted"], "error: llm=scripted has no script"),
        (
            ["placement=spread", "roles.teecher.replicas=2"],
            "roles.teecher: the workflow has no role 'teecher'",
        ),
    ],
)
def test_what_the_user_got_wrong_is_one_line_and_nothing_starts(
    peerloom, tmp_path: Path, overrides: list[str], message: str
) -> None:
    ended = peerloom("run", "coral", *overrides, "--run-dir", tmp_path / "run")
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_an_unknown_recipe(peerloom) -> None:
    ended = peerloom("run", "corl")
    assert ended.code == 2
    assert "recipe=corl: there is no such recipe. Did you mean 'coral'?" in ended.err


def test_the_same_command_again_goes_on_and_another_one_is_refused(peerloom, tmp_path: Path) -> None:
    given = ("run", "coral", *LOCAL, "--run-dir", tmp_path / "run")
    assert peerloom(*given, "limit=1").code == 0
    again = peerloom(*given, "limit=1")
    assert again.code == 0
    assert "nothing to do: all 1 rows are in" in again.err
    assert "completed 1" in again.out
    assert "completed 3" in peerloom(*given, "limit=3").out
    refused = peerloom(*given, "limit=2", "seed=1")
    assert refused.code == 2
    assert "error:   seed: was 0, now 1\nerror:   limit: was 3, now 2: it may grow" in refused.err
    assert "--fresh" in refused.err
    assert peerloom(*given, "limit=2", "seed=1", "--fresh").code == 0


def test_a_service_that_does_not_answer(peerloom, tmp_path: Path) -> None:
    ended = peerloom(
        "run", "coral", "engine=local", "llm=openai", "llm.base_url=http://127.0.0.1:9/v1", "llm.model=m",
        "--run-dir", tmp_path / "run",
    )  # fmt: skip
    assert ended.code == 1
    assert "\nerror: no LLM server answers at http://127.0.0.1:9/v1" in ended.err
    assert len(ended.err.strip().splitlines()) == 2, "after the step that failed"


def test_a_service_that_dies_says_where_the_finished_rows_are(peerloom, tmp_path: Path, monkeypatch) -> None:
    def die_after_one_row(plan: Plan, **execution: Any) -> RunResult:
        drive(
            replace(plan, source=RowsSource([{"question": "?", "options": ["a", "b"], "answer": "A"}])),
            **execution,
        )
        raise ServiceError("the model died")

    monkeypatch.setattr("peerloom.cli.commands.run.drive", die_after_one_row)
    ended = peerloom("run", "coral", *LOCAL, "-q", "--run-dir", tmp_path / "run")
    assert ended.code == 1
    assert ended.err == (
        f"rows written before the error are in {tmp_path / 'run'}\n"
        f"to resume: peerloom resume {tmp_path / 'run'}\nerror: the model died\n"
    )


@pytest.mark.parametrize("in_the_way", [b"nonsense\n", None])
def test_no_other_error_takes_the_place_of_the_first(
    peerloom, tmp_path: Path, in_the_way: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(_: Plan, *, run_dir: Path, **__: Any) -> RunResult:
        if in_the_way is not None:
            (run_dir / "data").mkdir(parents=True)
            (run_dir / "data" / "part-000-0001-0000.jsonl").write_bytes(in_the_way)
        raise ServiceError("the model died")

    monkeypatch.setattr("peerloom.cli.commands.run.drive", die)
    ended = peerloom("run", "coral", *LOCAL, "-q", "--run-dir", tmp_path / "run")
    assert (ended.code, ended.err) == (1, "error: the model died\n")


def test_the_home_directory_is_known_by_its_sign(
    peerloom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert f"in {tmp_path}/run/data" in peerloom("run", "coral", *LOCAL, "limit=1", "--run-dir=~/run").out
    assert "nothing to do" in peerloom("resume", "~/run").err
    assert peerloom("ctl", "status", "~/run").out.split()[:2] == ["state", "finished"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
def test_ctrl_c_drains_and_leaves_a_consistent_run(tmp_path: Path) -> None:
    arguments = [
        "run",
        "coral",
        *LOCAL,
        "llm.latency=0.05",
        "trials=100",
        "in_flight=4",
        "--run-dir",
        tmp_path,
    ]
    command = [sys.executable, "-m", "peerloom", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        while not any(part.stat().st_size for part in tmp_path.glob("data/part-*")):
            assert run.poll() is None
            time.sleep(0.01)
        run.send_signal(signal.SIGINT)
        out, _ = run.communicate(timeout=30)
    assert run.returncode == 130
    summary = json.loads((tmp_path / "summary.json").read_text())
    rows = [line for part in (tmp_path / "data").iterdir() for line in part.read_text().splitlines()]
    assert summary["admitted"] == summary["outcomes"]["completed"] == len(rows) >= 4
    assert "part-*.jsonl" in out
    assert "interrupted: finishing the tasks in flight" in (tmp_path / "log.jsonl").read_text()
