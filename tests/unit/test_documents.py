"""Everything that README and docs show is run here: Python as it stands, shell commands that are quick."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import peerloom

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MAKE_TARGETS = re.compile(r"^([a-z]+):", re.MULTILINE)


def blocks(language: str) -> list[Any]:
    found: list[Any] = []
    for document in DOCUMENTS:
        text = document.read_text()
        for match in BLOCK.finditer(text):
            if match[1] == language:
                line = text[: match.start()].count("\n") + 1
                found.append(pytest.param(match[2], id=f"{document.name}:{line}"))
    return found


def scripted(request: peerloom.ChatRequest) -> str:
    return request.choices[0] if request.choices else "A scripted sentence of some words."


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`peerloom.run` as in the documents, but in this process and without a model."""
    real = peerloom.run

    def run(*args: Any, **options: Any) -> Any:
        options["engine"] = "local"
        if options.get("llm") == "llamacpp":
            options["llm"] = scripted
        return real(*args, **options)

    monkeypatch.setattr(peerloom, "run", run)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code: str, no_model: None, run_workflow: Any) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, "<document>", "exec"), names)
    if "result" in names:
        assert len(list(names["result"])) > 0
    for name, value in names.items():
        if name.startswith("test_") and callable(value):
            value(run_workflow)


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("sh"))
def test_commands_work(block: str, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"question": "2 + 2?", "options": ["3", "4"], "answer": "B"}\n')
    bin_dir = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{bin_dir}{os.pathsep}{os.environ['PATH']}"}
    for line in block.splitlines():
        words = shlex.split(line.split("#")[0])
        if words[0] == "make":
            assert words[1] in MAKE_TARGETS.findall((ROOT / "Makefile").read_text())
        elif words[0] != "source":
            assert words[0] == "peerloom"
            subprocess.run(words, cwd=tmp_path, env=environment, check=True, timeout=100)


def test_the_twenty_line_example_has_twenty_lines_or_so() -> None:
    readme = blocks("python")[0].values[0]
    assert len([line for line in readme.splitlines() if line.strip()]) <= 22
