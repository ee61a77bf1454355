import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from peerloom import FunctionAgent, Sequence, api
from peerloom.control.client import TOKEN_VARIABLE, Channel, NotRunning, find, last_state
from peerloom.control.protocol import REFUSED, seal
from peerloom.errors import ConfigError, EngineError, RunDirError
from peerloom.services.secret import Secret
from peerloom.sink.rundir.directory import RunDir
from peerloom.sink.rundir.state import Fingerprint, How, State

TOKEN = Secret("token-0f3a9c")


def answers_at(run_dir: RunDir, **changes: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    content = {"address": address, "token": "secret", "host": socket.gethostname(), "pid": 1}
    run_dir.write(".peerloom/control.json", {**content, **changes})


def ended(path: Path, how: How) -> Path:
    run_dir = RunDir.claim(path)
    run_dir.write_state(State(session=1, peerloom="0.1.0", how=how, fingerprint=Fingerprint()))
    run_dir.release()
    return path


@pytest.fixture
def claimed(tmp_path: Path) -> Iterator[RunDir]:
    """Somebody has the directory."""
    run_dir = RunDir.claim(tmp_path / "run")
    yield run_dir
    run_dir.release()


@contextlib.asynccontextmanager
async def answering(*lines: bytes) -> AsyncIterator[str]:
    """A server that is no run: it says the first line, and answers a request with the second."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for line in lines:
            writer.write(line)
            await reader.readline()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def ask(address: str) -> Any:
    return await asyncio.to_thread(Channel(address, TOKEN).request, "status")


@pytest.mark.parametrize("changes", [{}, {"host": "node-7"}, {"address": "10.0.0.7:1"}])
def test_a_killed_driver_has_left_its_file(claimed: RunDir, changes: dict[str, str]) -> None:
    answers_at(claimed, **changes)
    claimed.release()
    run_dir = ended(claimed.path, "running")
    with pytest.raises(NotRunning, match=rf"not running; resume it with `peerloom resume {run_dir}`"):
        find(run_dir)
    assert last_state(run_dir) == {"state": "not running", "outcomes": {}, "reasons": {}}


def test_a_driver_is_killed_while_it_is_asked(claimed: RunDir) -> None:
    answers_at(claimed)
    channel = find(claimed.path)
    claimed.release()
    with pytest.raises(NotRunning, match="not running; resume it with `peerloom resume "):
        channel.request("pause")


def test_a_run_that_has_not_answered_yet(claimed: RunDir) -> None:
    with pytest.raises(NotRunning, match="starting or ending: try again"):
        find(claimed.path)
    assert last_state(claimed.path) == {"state": "starting"}


@pytest.mark.parametrize("how", ["finished", "drained", "failed"])
def test_what_a_run_that_is_over_tells(tmp_path: Path, how: How) -> None:
    ended(tmp_path, how)
    assert last_state(tmp_path) == {"state": how}
    (tmp_path / "summary.json").write_text('{"outcomes": {"completed": 3}}')
    assert last_state(tmp_path) == {"state": how, "outcomes": {"completed": 3}}
    with pytest.raises(NotRunning, match="is finished" if how == "finished" else "is not running"):
        find(tmp_path)


def test_no_run_at_all(tmp_path: Path) -> None:
    for call in (find, last_state):
        with pytest.raises(RunDirError, match="contains no run"):
            call(tmp_path)


def test_a_run_that_listens_on_another_host_only(claimed: RunDir) -> None:
    answers_at(claimed, host="node-7")
    with pytest.raises(EngineError, match="only reachable on node-7: use peerloom ctl there"):
        find(claimed.path)


def test_a_file_that_cannot_be_read(claimed: RunDir) -> None:
    (claimed.path / ".peerloom/control.json").write_text("{")
    with pytest.raises(RunDirError, match=r"control\.json cannot be read"):
        find(claimed.path)


def test_an_address_needs_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=TOKEN_VARIABLE):
        find(address="node-7:4711")
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    assert find(address="node-7:4711") == Channel("node-7:4711", Secret("secret"))
    assert find(address="[::1]:4711").address == "[::1]:4711"


@pytest.mark.parametrize(
    "address", ["node-7", "node-7:", ":1", "http://node-7:1", "node-7:99999", "a@b:1", "a:1/x"]
)
def test_what_is_no_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    with pytest.raises(ConfigError, match="must be HOST:PORT"):
        find(address=address)


async def test_a_server_that_has_taken_the_port_is_not_believed() -> None:
    unsigned = b'00 {"state": "running"}\n'
    of_another_request = seal(TOKEN, "answer", b"another request\n", {"state": "running"})
    for answer in (unsigned, of_another_request, b"HTTP/1.1 200 OK\r\n"):
        async with answering(b"nonce\n", answer) as address:
            with pytest.raises(EngineError, match="is not this run: it does not know the token"):
                await ask(address)


async def test_equal_requests_differ_so_that_no_answer_can_be_used_twice() -> None:
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"always the same nonce\n")
        requests.append(await reader.readline())
        writer.write(seal(TOKEN, "answer", requests[0], {"state": "running"}))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert await ask(address) == {"state": "running"}
        with pytest.raises(EngineError, match="is not this run"):
            await ask(address)


async def test_a_refusal_and_a_closed_connection_are_told_apart() -> None:
    async with answering(b"nonce\n", REFUSED) as address:
        with pytest.raises(EngineError, match="refuses: the token is not this run's"):
            await ask(address)
    for lines in ((), (b"nonce\n",)):
        async with answering(*lines) as address:
            with pytest.raises(EngineError, match="does not answer at"):
                await ask(address)


async def test_a_failure_in_the_run_is_no_mistake_of_the_user() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"nonce\n")
        writer.write(seal(TOKEN, "answer", await reader.readline(), {"failed": "KeyError(3)"}))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        with pytest.raises(EngineError, match=r"failed to status: KeyError\(3\)"):
            await ask(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")


def test_an_unreadable_token_is_another_users(claimed: RunDir) -> None:
    answers_at(claimed)
    (claimed.path / ".peerloom/control.json").chmod(0)
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    with pytest.raises(RunDirError, match="Only the user who started the run can read it"):
        find(claimed.path)


def test_the_rows_of_a_killed_run_are_counted(tmp_path: Path) -> None:
    rows, agents = (
        [{"n": number} for number in range(5)],
        {"a": FunctionAgent(lambda task: 6 // task.input["n"])},
    )
    run_dir = tmp_path / "run"
    api.run(
        workflow=Sequence("a"),
        agents=agents,
        source=rows,
        llm="simulated",
        engine="local",
        run_dir=run_dir,
        progress=False,
    )
    ended(run_dir, "running")
    assert last_state(run_dir) == {
        "state": "not running",
        "outcomes": {"completed": 4, "failed": 1},
        "reasons": {"agent_error": 1},
    }
