"""Run the code blocks of README and docs.

Python blocks run unchanged, shell blocks line by line. A Python block that begins with the name of a file,
as in `# lab.py`, is that file for the shell blocks. Servers at ports 8000 and 8001 are replaced by
simulated ones at other ports. A command that ends with `&` runs until the end of its block. If the comment
of a command names what it `needs`, only its configuration is checked. A command that fails has `exit code
N` in its comment.
"""

import asyncio
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest

import peerloom
from peerloom.api import make_plan
from peerloom.config.composition.overrides import keys
from peerloom.config.serve import check_serve_options
from peerloom.services.llm.simulated.server.app import ServerConfig, serving

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MAKE_TARGETS = re.compile(r"^([a-z-]+):", re.MULTILINE)
FILE = re.compile(r"# (\w+\.py)\n")
PORT = re.compile(r"(127\.0\.0\.1:|--port )(800[01])\b")
EXIT_CODE = re.compile(r"exit code (\d+)")
MADE = re.compile(r"(?:--run-dir |--to |new |serve up |cache\.path=)(\S+)")
"""What a command makes that later ones in its block may use."""
QUICK = re.compile(r"make |.* # needs |peerloom recipes ")


def named_files() -> dict[str, str]:
    """The Python blocks that begin with the name of a file, for the commands that use it."""
    codes = [block.values[0] for block in blocks("python")]
    return {match[1]: code for code in codes if (match := FILE.match(code))}


def blocks(language: str) -> list[Any]:
    found: list[Any] = []
    for document in DOCUMENTS:
        text = document.read_text()
        for match in BLOCK.finditer(text):
            if match[1] == language:
                line = text[: match.start()].count("\n") + 1
                found.append(pytest.param(match[2], id=f"{document.name}:{line}"))
    return found


def scripts() -> list[Any]:
    """The commands of the documents, each by itself, or with those before it that it builds on."""
    found: list[Any] = []
    for block in blocks("sh"):
        lines = [line for line in block.values[0].splitlines() if line and not line.startswith("source ")]
        groups: list[list[str]] = []
        for line in lines:
            before = "\n".join(groups[-1]) if groups else ""
            if before.endswith("&") or any(made in line for made in MADE.findall(before)):
                groups[-1].append(line)
            else:
                groups.append([line])
        for number, group in enumerate(groups):
            quick = all(QUICK.match(f"{line} ") for line in group)
            marks = () if quick else pytest.mark.slow
            found.append(pytest.param("\n".join(group), id=f"{block.id}-{number}", marks=marks))
    return found


def scripted(request: peerloom.ChatRequest) -> str:
    return request.choices[0] if request.choices else "A scripted sentence of some words."


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    """Simulated servers, by the ports that documents give them."""
    found: dict[str, int] = {}
    ready, loop = threading.Event(), asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            for port in ("8000", "8001"):
                found[port] = await stack.enter_async_context(serving(ServerConfig(port=0)))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(30)
    yield found
    loop.call_soon_threadsafe(over.set)
    thread.join()
    loop.close()


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
def test_python_runs(code: str, ports: dict[str, int], no_model: None, run_workflow: Any) -> None:
    for name, named in named_files().items():
        Path(name).write_text(named)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(_moved(code, ports), "<document>", "exec"), names)
    if "result" in names:
        assert len(list(names["result"])) > 0
    for name, value in names.items():
        if name.startswith("test_") and callable(value):
            value(run_workflow)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("script", scripts())
def test_commands_work(
    script: str, ports: dict[str, int], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "mine.jsonl").write_text('{"question": "2 + 2?", "options": ["3", "4"], "answer": "B"}\n')
    (tmp_path / "pages").mkdir()
    for name, code in named_files().items():
        (tmp_path / name).write_text(code)
    text = "Water is densest at 4 degrees, so a lake freezes from the top. "
    (tmp_path / "pages" / "lake.txt").write_text(9 * text)
    bin_dir = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{bin_dir}{os.pathsep}{os.environ['PATH']}",
        "PEERLOOM_FLEETS": str(tmp_path / "fleets"),
    }
    if "simulate-llm --port" in script:
        ports = {port: _free_port() for port in ports}
    in_readme = request.node.callspec.id.startswith("README")
    with ExitStack() as stack:
        for line in _moved(script, ports).splitlines():
            command, _, comment = line.partition("  # ")
            words = shlex.split(command)
            if words[0] == "make":
                assert words[1] in MAKE_TARGETS.findall((ROOT / "Makefile").read_text())
                continue
            assert words[0] in ("peerloom", "pytest"), line
            if "needs " in comment:
                _check(words)
                continue
            if words[1] == "estimate" or (words[1] == "run" and not in_readme):
                words.append("engine=local")  # Ray takes its time; README's runs are on it
            if words[:3] == ["peerloom", "serve", "up"]:
                down = ["peerloom", "serve", "down", words[3]]
                stack.callback(subprocess.run, down, cwd=tmp_path, env=environment, capture_output=True)
            if words[-1] == "&":
                _in_background(words[:-1], tmp_path, environment, stack)
            else:
                ended = subprocess.run(words, cwd=tmp_path, env=environment, timeout=200, check=False)
                expected = EXIT_CODE.search(comment)
                assert ended.returncode == (int(expected[1]) if expected else 0), line


def test_the_writer_in_the_readme_sees_the_critique(no_model: None, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[peerloom.ChatRequest] = []
    run = peerloom.run

    def llm(request: peerloom.ChatRequest) -> str:
        requests.append(request)
        return request.choices[0] if request.choices else f"Said by the {request.role}."

    monkeypatch.setattr(peerloom, "run", lambda **options: run(**{**options, "llm": llm}))
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(blocks("python")[0].values[0], "<document>", "exec"), names)
    prompts = [request.messages for request in requests if request.role == "writer"]
    second = next(prompt for prompt in prompts if len(prompt) > 1)
    assert [message["role"] for message in second] == ["user", "assistant", "user"]
    assert second[-1]["content"] == "Said by the critic."
    assert second == next(iter(names["result"]))["messages"][:3]


def test_the_twenty_line_example_has_twenty_lines_or_so() -> None:
    readme = blocks("python")[0].values[0]
    assert len([line for line in readme.splitlines() if line.strip()]) <= 22


def _moved(text: str, ports: dict[str, int]) -> str:
    """The text with the ports that the servers really have."""
    return PORT.sub(lambda match: f"{match[1]}{ports[match[2]]}", text)


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def _check(words: list[str]) -> None:
    """Check the configuration of a command that cannot run here."""
    if words[1] == "run":
        make_plan(words[2], words[3:])
    else:
        assert words[1] == "serve" and words[2] in ("up", "load", "unload"), words
        if words[2] == "up":
            check_serve_options(keys([word for word in words[4:] if "=" in word]))


def _in_background(words: list[str], where: Path, environment: dict[str, str], stack: ExitStack) -> None:
    """Start a command, and wait for its first word."""
    started = subprocess.Popen(words, cwd=where, env=environment, stdout=subprocess.PIPE)
    stack.enter_context(started)
    stack.callback(started.terminate)
    assert started.stdout is not None
    assert started.stdout.readline()
