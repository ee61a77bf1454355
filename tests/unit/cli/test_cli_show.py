import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import peerloom as api
from peerloom.sink.layout import INDEX
from peerloom.sink.rows import Row
from peerloom.sink.rundir.directory import RunDir
from peerloom.sink.shard import ShardFiles
from peerloom.stored import to_stored
from peerloom.task import TaskId


def make_row(number: int, outcome: str = "completed", **fields: Any) -> dict[str, Any]:
    return {
        "id": f"0-{number}-0",
        "outcome": outcome,
        "reason": "",
        "input": {"n": number},
        "messages": [{"role": "user", "content": f"question {number}"}],
        "turns": [{"agent": "teacher", "message": {"role": "assistant", "content": f"answer {number}"}}],
        "result": None,
        "provenance": {"label": None},
        **fields,
    }


def write(run_dir: Path, groups: Sequence[Sequence[dict[str, Any]]]) -> ShardFiles:
    """Commit rows in groups, as an active run does, and return the open files."""
    RunDir.claim(run_dir).release()
    shard = ShardFiles.take(run_dir, 0, 1)
    for group in groups:
        shard.commit(
            [
                Row(
                    TaskId(*map(int, row["id"].split("-"))),
                    row["outcome"],
                    row["reason"],
                    json.dumps(to_stored(row)).encode(),
                    {},
                )
                for row in group
            ]
        )
    return shard


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run whose rows 3 and 7 were rejected, which is still active."""
    error = {"role": "teacher", "type": "KeyError", "message": "'x'", "file": "mine.py", "line": 12}
    rejected = {"outcome": "failed", "reason": "agent_error", "detail": "KeyError: 'x'", "error": error}
    rows = [make_row(n, **(rejected if n in (3, 7) else {})) for n in range(10)]
    write(tmp_path / "run", [rows[:4], rows[4:8], rows[8:]])
    return tmp_path / "run"


def ids_in(out: str) -> list[str]:
    return [line.split()[1] for line in out.splitlines() if line.startswith("──")]


def test_the_first_completed_rows(peerloom, run_dir: Path) -> None:
    ended = peerloom("show", run_dir)
    assert (ended.code, ids_in(ended.out)) == (0, ["0-0-0", "0-1-0", "0-2-0"])
    assert ended.out.startswith(
        "── 0-0-0\nuser: question 0\nteacher: answer 0\noutcome: completed\n\n── 0-1-0\n"
    )
    assert ended.err == "3 of 8 completed rows\n"
    assert ids_in(peerloom("show", run_dir, "--limit", "5").out) == [f"0-{n}-0" for n in (0, 1, 2, 4, 5)]


def test_rows_by_id_in_the_given_order(peerloom, run_dir: Path) -> None:
    ended = peerloom("show", run_dir, "0-8-0", "0-3-0", "0-8-0")
    assert (ended.code, ids_in(ended.out), ended.err) == (0, ["0-8-0", "0-3-0"], "")


def test_rows_that_are_named_are_shown_whole(peerloom, tmp_path: Path) -> None:
    text = "x" * 100_000
    write(tmp_path / "run", [[make_row(0, result=text)]])
    assert text in peerloom("show", tmp_path / "run", "0-0-0").out
    assert "more characters)" in peerloom("show", tmp_path / "run").out


def test_rejected_rows_with_the_cause(peerloom, run_dir: Path) -> None:
    ended = peerloom("show", run_dir, "--failed")
    assert ids_in(ended.out) == ["0-3-0", "0-7-0"]
    assert (
        ended.out.count(
            "outcome: failed (agent_error): KeyError: 'x'\nerror: KeyError in teacher at mine.py:12\n"
        )
        == 2
    )
    assert ended.err == "2 of 2 rejected rows\n"


def test_random_rows(peerloom, run_dir: Path) -> None:
    drawn = {
        tuple(ids_in(peerloom("show", run_dir, "--random", "3", "--seed", seed).out))
        for seed in range(20)
        for _ in "ab"
    }
    assert 1 < len(drawn) <= 20
    assert {len(set(ids)) for ids in drawn} == {3}
    assert {id for ids in drawn for id in ids} == {f"0-{n}-0" for n in range(10) if n not in (3, 7)}
    assert len(ids_in(peerloom("show", run_dir, "--random", "99").out)) == 8
    assert ids_in(peerloom("show", run_dir, "--failed", "--random", "99").out) == ["0-3-0", "0-7-0"]


@pytest.mark.parametrize("options", [("-n", "9"), ("--random", "9")])
def test_rows_of_which_an_expression_is_true(options: tuple[str, str], peerloom, run_dir: Path) -> None:
    ended = peerloom("show", run_dir, "--where", "input.n > 1", *options, "--json")
    numbers = [json.loads(line)["input"]["n"] for line in ended.out.splitlines()]
    assert numbers
    assert min(numbers) == 2
    wrong = peerloom("show", run_dir, "--where", "input.n >")
    assert wrong.code == 2
    assert "`input.n >` is no expression" in wrong.err


def test_json_lines(peerloom, run_dir: Path) -> None:
    ended = peerloom("show", run_dir, "0-1-0", "0-7-0", "--json")
    assert [json.loads(line)["input"]["n"] for line in ended.out.splitlines()] == [1, 7]


def test_a_finished_run(peerloom, tmp_path: Path) -> None:
    result = api.run("coral", llm="simulated", engine="local", limit=4, run_dir=tmp_path / "run")
    rows = list(result)
    ended = peerloom("show", tmp_path / "run", rows[2]["id"], "--json")
    assert json.loads(ended.out) == rows[2]
    assert "\nteacher: " in peerloom("show", tmp_path / "run", rows[2]["id"]).out


def test_rows_without_an_index(peerloom, run_dir: Path) -> None:
    shutil.rmtree(run_dir / INDEX)
    assert ids_in(peerloom("show", run_dir, "0-7-0", "0-9-0").out) == ["0-7-0", "0-9-0"]
    assert peerloom("show", run_dir).err == "3 of 3 completed rows\n"


def test_requests(peerloom, tmp_path: Path) -> None:
    request = {
        "messages": [{"role": "system", "content": "Judge."}, {"role": "user", "content": "Is it\ngood?"}]
    }
    calls = [
        {"request": {**request, "temperature": 0.5}, "reply": {"text": "well"}, "usage": {}},
        {
            "request": {**request, "temperature": None, "choices": ["no", "yes"]},
            "reply": {"text": "yes"},
            "usage": {},
        },
    ]
    turns = [
        {"agent": "judge", "value": "yes", "usage": {"calls": 2}, "calls": calls},
        {"agent": "critic", "value": 1, "usage": {"calls": 1}},
    ]
    write(tmp_path / "run", [[make_row(0, messages=[], turns=turns)]])
    assert peerloom("show", tmp_path / "run", "--requests").out == (
        "── 0-0-0\n"
        'input: {"n":0}\n'
        "judge, request 1 of 2: \n"
        "    system: Judge.\n"
        "    user: Is it\n"
        "        good?\n"
        "    temperature: 0.5\n"
        "judge, reply 1 of 2: well\n"
        "judge, request 2 of 2: \n"
        "    system: Judge.\n"
        "    user: Is it\n"
        "        good?\n"
        '    choices: ["no","yes"]\n'
        "judge, reply 2 of 2: yes\n"
        "judge (value): yes\n"
        "critic (value): 1\n"
        "requests: not recorded\n"
        "outcome: completed\n\n"
    )
    assert "Judge." not in peerloom("show", tmp_path / "run").out


def test_what_models_wrote_is_no_control_sequence(peerloom, tmp_path: Path) -> None:
    hostile = "\x1b[2J\x1b]0;x\x07\x9b31m\u202e\noutcome: failed"
    call = {
        "request": {"messages": [{"role": hostile, "content": hostile}], hostile: 1},
        "reply": {"text": hostile},
    }
    turns = [{"agent": hostile, "value": hostile, "calls": [call]}]
    write(
        tmp_path / "run",
        [[make_row(0, turns=turns, detail=hostile, error={"type": hostile, "role": hostile})]],
    )
    for options in (["--requests"], ["--json"]):
        out = peerloom("show", tmp_path / "run", *options).out
        assert not any(char in out for char in "\x1b\x07\x9b")
        assert sum(line.startswith("outcome") for line in out.splitlines()) == (options == ["--requests"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "there is no run directory nowhere"),
        (["."], ". contains no run of Peerloom"),
        (["run", "0-99-0", "0-1-0"], "run has no row 0-99-0: "),
        (["run", "7"], "7 is no id of a row: ids are FILE-ROW-TRIAL"),
        (
            ["run", "0-1-0", "--failed", "--limit", "2"],
            "ids name the rows to show: leave out --failed and --limit",
        ),
        (["run", "--random", "2", "--limit", "2"], "--random says how many rows to show"),
        (["run", "--seed", "2"], "--seed is for --random"),
        (["empty"], "empty has no completed row"),
        (["bad"], "bad has no completed row (failed 1: add --failed)"),
    ],
)
def test_invalid_arguments(
    peerloom, run_dir: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(run_dir.parent)
    write(Path("empty"), [])
    write(Path("bad"), [[make_row(0, "failed")]])
    ended = peerloom("show", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: {message}")
    assert len(ended.err.splitlines()) == 1


def test_no_rejected_row(peerloom, tmp_path: Path) -> None:
    write(tmp_path / "run", [[make_row(0)]])
    assert peerloom("show", tmp_path / "run", "--failed") == (0, "", "no row was rejected\n")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_closed_pipe_ends_it_quietly(tmp_path: Path, options: list[str]) -> None:
    write(tmp_path / "run", [[make_row(n, result="x" * 10_000) for n in range(100)]])
    command = [sys.executable, "-m", "peerloom", "show", str(tmp_path / "run"), "--limit", "100", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors.count(b"\n"), b" of 100 completed rows" in errors) == (0, 1, True)


def test_a_terminal_pages_in_colors(run_dir: Path) -> None:
    main, terminal = os.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "PAGER": "sed s/^/paged:/"}
    command = [sys.executable, "-m", "peerloom", "show", str(run_dir), "0-1-0"]
    with subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, env=environment
    ) as process:
        os.close(terminal)
        shown = b""
        while b"completed" not in shown:
            shown += os.read(main, 4096)
    os.close(main)
    assert process.returncode == 0
    assert b"paged:\x1b[2m" in shown
    assert b"paged:\x1b[1mteacher: \x1b[0m" in shown
