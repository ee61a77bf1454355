import json
import sys
from pathlib import Path
from typing import Any

import pytest

from peerloom import api
from peerloom.services.llm.simulated.service import SimulatedService
from peerloom.sink.read import read_rows

LOCAL = ("engine=local", "llm=simulated")
ROWS = [{"question": "?", "options": ["a", "b"], "answer": "A"}]


def test_a_run_goes_on_as_its_directory_says(peerloom, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    given = ("recipe.max_rounds=1", "trials=2", "limit=2")
    assert peerloom("run", "coral", *LOCAL, *given, "-q", "--run-dir", run_dir).code == 0
    ended = peerloom("resume", run_dir, "limit=5", "in_flight=2", "--json", "-q")
    assert (ended.code, ended.err) == (0, "")
    shown = json.loads(ended.out)
    assert (shown["how"], shown["admitted"], shown["sessions"]) == ("finished", 10, 2)
    assert "limit: 5\n" in (run_dir / "run.yaml").read_text()
    log = [json.loads(line)["event"] for line in (run_dir / "log.jsonl").read_text().splitlines()]
    assert log.count("run_finished") == 2


def test_a_finished_run_has_nothing_to_do(peerloom, tmp_path: Path) -> None:
    assert peerloom("run", "coral", *LOCAL, "limit=1", "-q", "--run-dir", tmp_path / "run").code == 0
    ended = peerloom("resume", tmp_path / "run")
    assert ended.code == 0
    assert "nothing to do: all 1 rows are in" in ended.err
    assert "simulated model" not in ended.err
    assert "completed 1" in ended.out


def test_failed_rows_are_done_again(peerloom, tmp_path: Path) -> None:
    broken = ("llm.rate_5xx=1", "llm.max_retries=0", "limit=2")
    first = peerloom("run", "coral", *LOCAL, *broken, "--run-dir", tmp_path / "run")
    assert "failed 2" in first.out
    assert f"peerloom resume {tmp_path}/run --retry-failed " in "".join(first.err.splitlines())
    assert "failed 2" in peerloom("resume", tmp_path / "run", "llm.rate_5xx=0").out
    ended = peerloom("resume", tmp_path / "run", "llm.rate_5xx=0", "--retry-failed")
    assert "2 failed tasks are done again" in ended.err
    assert "completed 2" in ended.out


def test_what_is_no_run_is_refused_and_left_alone(peerloom, tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        ended = peerloom("resume", path)
        assert ended.code == 2
        assert f"error: {path} has no run to resume: it lacks run.yaml and .peerloom/state.json" in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("override", "told"), [("seed=4", "seed: was 0, now 4"), ("llm=openai", "llm.kind")])
def test_what_decides_rows_may_not_change(
    peerloom, tmp_path: Path, override: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    assert peerloom("run", "coral", *LOCAL, "limit=1", "-q", "--run-dir", tmp_path / "run").code == 0
    ended = peerloom("resume", tmp_path / "run", override)
    assert ended.code == 2
    assert told in ended.err


RECIPE = """
from dataclasses import dataclass
from peerloom import LLMAgent, Program, Recipe
from peerloom.workflow import Sequence

@dataclass(frozen=True)
class Params:
    tokens: int = 500

def program(params):
    writer = LLMAgent("Write about {{ input.question }}\\nin one line.", max_tokens=params.tokens)
    return Program(Sequence("writer"), {"writer": writer})

RECIPE = Recipe(name="mine", summary="writes", params=Params, program=program)
"""


def test_a_changed_prompt_stops_a_run_until_it_is_accepted(
    peerloom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, run_dir, rows = tmp_path / "my_changed_recipe.py", tmp_path / "run", tmp_path / "rows.jsonl"
    rows.write_text('{"question": "ice"}\n{"question": "fire"}\n')
    monkeypatch.setattr(sys, "path", sys.path.copy())

    def use(text: str, *arguments: object) -> Any:
        sys.modules.pop(file.stem, None)
        file.write_text(text)
        return peerloom(*arguments)

    begin = ("run", f"{file}:RECIPE", *LOCAL, f"source.path={rows}", "limit=1", "-q", "--run-dir", run_dir)
    assert use(RECIPE, *begin).code == 0
    assert use(f"# why\n{RECIPE}", "resume", run_dir).code == 0
    changed = RECIPE.replace("in one line.", "in one word.\\033[31m")
    for arguments in (("resume", run_dir), begin, (*begin, "--dry-run")):
        ended = use(changed, *arguments)
        assert ended.code == 2
        for line in ("--- agent writer (was)", "-  in one line.", "+  in one word.\ufffd[31m"):
            assert f"error:   {line}\n" in ended.err
        assert "--accept-program" in ended.err
    ended = use(changed, "resume", run_dir, "--accept-program", "limit=2")
    assert ended.code == 0
    assert "the program has changed: this session uses version" in ended.err
    old, new = (row["provenance"]["program"] for row in read_rows(run_dir))
    assert old != new
    both = use(RECIPE, "resume", run_dir, "recipe.tokens=400", "--accept-program")
    assert both.code == 2
    assert "recipe.tokens: was 500, now 400" in both.err


def test_a_run_that_has_done_nothing_is_not_replaced_by_another(peerloom, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()  # or it would be removed
    nobody = ("engine=local", "llm=openai", "llm.base_url=http://127.0.0.1:9/v1", "llm.model=m")
    assert peerloom("run", "coral", *nobody, "-q", "--run-dir", tmp_path / "run").code == 1
    before = (tmp_path / "run" / ".peerloom/state.json").read_text()
    ended = peerloom("resume", tmp_path / "run", "seed=4")
    assert ended.code == 2
    assert "seed: was 0, now 4" in ended.err
    assert (tmp_path / "run" / ".peerloom/state.json").read_text() == before


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"source": ROWS, "llm": ["no"]}, "with a model and rows that"),
        ({"llm": SimulatedService()}, "with a model that"),
        ({"source": ROWS, "llm": "simulated"}, "with rows that"),
    ],
)
def test_what_was_started_from_python_goes_on_there(
    peerloom, tmp_path: Path, given: dict[str, Any], named: str
) -> None:
    run_dir = tmp_path / "run"
    api.run("coral", engine="local", limit=1, run_dir=run_dir, progress=False, **given)
    before = (run_dir / ".peerloom/state.json").read_text()
    ended = peerloom("resume", run_dir)
    assert ended.code == 2
    assert f"was started from Python, {named} run.yaml cannot hold: to resume it, call the same " in ended.err
    assert (run_dir / ".peerloom/state.json").read_text() == before


def test_no_weights_are_fetched_for_a_run_that_is_done_or_refused(
    peerloom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled: list[str] = []
    monkeypatch.setattr("peerloom.cli.commands.models.pull_with_bar", lambda name, **_: pulled.append(name))
    monkeypatch.setattr("peerloom.config.sections.llm.LlamaCppService", lambda **_: SimulatedService())
    given = ("run", "coral", "engine=local", "llm=llamacpp", "-q", "--run-dir", tmp_path / "run")
    assert peerloom(*given, "limit=1").code == 0
    assert pulled == ["smollm2-135m"]
    assert peerloom("resume", tmp_path / "run").code == 0
    assert peerloom("resume", tmp_path / "run", "seed=4").code == 2
    assert peerloom(*given, "limit=1", "seed=4").code == 2
    assert len(pulled) == 1
    assert peerloom("resume", tmp_path / "run", "limit=2").code == 0
    assert peerloom(*given, "limit=1", "seed=4", "--fresh").code == 0
    assert len(pulled) == 3
