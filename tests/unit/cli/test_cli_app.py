import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest


def test_help_lists_the_verbs(peerloom) -> None:
    ended = peerloom("--help")
    assert ended.code == 0
    for verb in ("new", "preview", "run", "check", "export", "recipes", "models", "simulate-llm"):
        assert f"\n  {verb} " in ended.out


def test_version(peerloom) -> None:
    assert peerloom("--version").out.strip() == version("peerloom")


def test_an_unknown_verb_is_refused_with_the_nearest(peerloom) -> None:
    ended = peerloom("rnu", "coral")
    assert ended.code == 2
    assert "rnu" in ended.err


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_what_is_asked_often_imports_nothing_of_weight(arguments: list[str]) -> None:
    heavy = "{'ray', 'pydantic', 'rich', 'aiohttp', 'jinja2', 'xllamacpp', 'omegaconf'}"
    code = (
        "import sys, contextlib, io\n"
        "from peerloom.cli import main\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        f"    main({arguments})\n"
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout == "[]\n"


def test_python_dash_m_is_the_same_command() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "peerloom", "--version"], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == version("peerloom")


def test_modules_of_the_current_directory_come_last(peerloom, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "of_my_own.py").write_text("RECIPE = 'not one'")
    (tmp_path / "json.py").write_text("raise AssertionError('hides the real one')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert "'of_my_own:RECIPE' is no recipe but str" in peerloom("check", "of_my_own:RECIPE").err
    assert sys.path[-1] == str(tmp_path)
