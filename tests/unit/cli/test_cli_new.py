import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import peerloom as api


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_recipe"]:
        del sys.modules[name]
    importlib.invalidate_caches()


def test_what_is_made_runs_at_once(peerloom, here: Path) -> None:
    ended = peerloom("new", "my_recipe")
    assert ended.code == 0
    assert "\npeerloom preview my_recipe:RECIPE " in ended.out
    assert [path.name for path in here.iterdir()] == ["my_recipe"]
    run = ("run", "my_recipe:RECIPE", "llm=simulated", "engine=local", "-q", "--run-dir", "run")
    assert "completed 3" in peerloom(*run).out
    for row in api.read_rows("run"):
        assert row["result"]["text"] == row["messages"][-1]["content"]
        assert [turn["agent"] for turn in row["turns"]][:2] == ["writer", "critic"]


def test_a_scripted_model_and_the_rounds(peerloom) -> None:
    assert peerloom("new", "my_recipe").code == 0
    script = "llm.replies=[It is so.,unclear]"
    given = ("preview", "my_recipe:RECIPE", "llm=scripted", script, "recipe.max_rounds=2", "-n", "1")
    out = peerloom(*given).out
    assert out.count("writer: It is so.\ncritic (value): unclear\n") == 2
    assert 'result: {"text":"It is so.","clear":false}' in out


@pytest.mark.slow
def test_its_own_tests_pass(peerloom, here: Path) -> None:
    assert peerloom("new", "my_recipe").code == 0
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "my_recipe"]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_another_directory(peerloom, here: Path) -> None:
    ended = peerloom("new", "my_recipe", "--dir", "of/mine", "--json")
    assert json.loads(ended.out) == {"path": "of/mine/my_recipe", "recipe": "my_recipe:RECIPE"}
    assert (here / "of" / "mine" / "my_recipe" / "recipe.py").is_file()
    assert "\ncd of/mine\n" in peerloom("new", "my_other", "--dir", "of/mine").out


def test_the_workflow_is_short(peerloom, here: Path) -> None:
    assert peerloom("new", "my_recipe").code == 0
    text = (here / "my_recipe" / "recipe.py").read_text()
    body = text[text.index("def program") :].splitlines()
    assert len([line for line in body if line.strip()]) <= 20


@pytest.mark.parametrize("name", ["my-recipe", "2nd", "class", "_mine", "a.b", "a/b", "..", "é", ""])
def test_a_name_that_python_cannot_import(peerloom, here: Path, name: str) -> None:
    ended = peerloom("new", name)
    assert ended.code == 2
    assert ended.err.startswith(f"error: {name!r} is not a valid recipe name")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("name", ["json", "pytest", "peerloom"])
def test_a_name_that_is_taken(peerloom, here: Path, name: str) -> None:
    assert f"{name!r} is an installed Python package" in peerloom("new", name).err
    assert list(here.iterdir()) == []


def test_what_is_there_stays(peerloom, here: Path) -> None:
    (here / "my_recipe").mkdir()
    (here / "file").touch()
    assert "my_recipe exists already" in peerloom("new", "my_recipe").err
    assert "file cannot be created: File exists" in peerloom("new", "my_recipe", "--dir", "file").err
    assert list((here / "my_recipe").iterdir()) == []
