import json
import re
import tempfile
from pathlib import Path

import pytest

LLM = "llm=simulated"


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made, and the current directory."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_few_dialogues_and_nothing_is_left(peerloom, scratch: Path) -> None:
    ended = peerloom("preview", "coral", LLM)
    assert ended.code == 0
    assert [line for line in ended.out.splitlines() if line.startswith("──")] == [
        "── 0-0-0",
        "── 0-1-0",
        "── 0-2-0",
    ]
    assert ended.out.count("\nuser: Question: ") == ended.out.count("\noutcome: completed\nresult: {") == 3
    assert "\nteacher: " in ended.out
    assert ended.out.endswith("\n\ncompleted 3\n")
    assert list(scratch.iterdir()) == []


def test_rows_as_json_one_a_line(peerloom) -> None:
    ended = peerloom("preview", "coral", LLM, "-n", "2", "--json", "-q")
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert [row["id"] for row in rows] == ["0-0-0", "0-1-0"]
    assert ended.err == ""


def test_what_the_user_says_wins_over_what_a_run_file_says(peerloom, scratch: Path) -> None:
    (scratch / "mine.yaml").write_text(
        "recipe: {name: coral}\nllm: {kind: simulated}\nengine: ray\nlimit: 50\ntrials: 9\n"
    )
    assert "\ncompleted 1\n" in peerloom("preview", "mine.yaml", "-n", "1").out
    assert "\ncompleted 4\n" in peerloom("preview", "mine.yaml", "limit=2", "trials=2").out


def test_a_run_directory_is_kept(peerloom, scratch: Path) -> None:
    assert peerloom("preview", "coral", LLM, "-n", "1", "--run-dir", scratch / "kept").code == 0
    assert [path.name for path in scratch.iterdir()] == ["kept"]
    assert "completed 1" in peerloom("resume", scratch / "kept", "limit=1").out


def test_rejected_rows_say_why(peerloom, scratch: Path) -> None:
    (scratch / "q.jsonl").write_text('{"bad": 1}\n{"question": "?", "options": ["a", "b"], "answer": "A"}\n')
    out = peerloom("preview", "coral", LLM, "source.path=q.jsonl").out
    assert out.index("outcome: failed (bad_row): not a multiple-choice") < out.index("outcome: completed")


@pytest.mark.parametrize(
    ("options", "code"), [(["source.path=bad.jsonl"], 1), (["budget.tokens=1"], 3), (["max_failed=0"], 1)]
)
def test_a_directory_that_messages_refer_to_is_kept(
    peerloom, scratch: Path, options: list[str], code: int
) -> None:
    good = '{"question": "?", "options": ["a", "b"], "answer": "A"}\n'
    (scratch / "bad.jsonl").write_text('{"bad": 1}\n')
    (scratch / "mixed.jsonl").write_text(f'{{"bad": 1}}\n{good}')
    ended = peerloom("preview", "coral", LLM, "source.path=mixed.jsonl", *options)
    assert ended.code == code
    mentioned = re.findall(rf"{scratch}/peerloom-[\w/]+", ended.err)
    assert len(mentioned) > 1
    assert all(Path(path).exists() for path in mentioned), mentioned
    assert f"the run is kept in {mentioned[-1]}" in ended.err
    assert peerloom("show", mentioned[-1], "--failed").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["corl", LLM], 2, "recipe=corl: there is no such recipe"),
        (["coral", "llm=simulatd"], 2, "there is no such llm. Did you mean 'simulated'?"),
        (["coral", "llm=openai", "llm.base_url=http://127.0.0.1:9/v1", "llm.model=m"], 1, "no LLM server"),
    ],
)
def test_errors_are_those_of_a_run(
    peerloom, scratch: Path, arguments: list[str], code: int, message: str
) -> None:
    ended = peerloom("preview", *arguments)
    assert (ended.code, message in ended.err) == (code, True)
    assert list(scratch.iterdir()) == []
