"""The embedded engine's server dies, gets stuck, and comes back: with a stand-in that dies as told."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from peerloom.errors import ServiceError
from peerloom.services.llm.base import ChatRequest
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.llamacpp import service as llamacpp
from peerloom.services.llm.llamacpp.service import LlamaCppService
from peerloom.services.processes import replica
from peerloom.services.processes.spawn import ChildProcess, LocalSpawner

HELLO = ChatRequest(messages=[{"role": "user", "content": "hi"}])
PATIENCE = 30.0  # seconds, for a busy machine

STAND_IN = """
import json, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

fate, *options = sys.argv[1:]
given = dict(zip(options[::2], options[1::2]))
if fate == "dies":
    sys.exit("no memory for it")
if fate == "loads":
    time.sleep(1000)

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/health" and fate == "busy" and busy.is_set():
            threading.Event().wait()
        self.answer({"data": [{"id": given["--alias"]}]})
        if self.path == "/v1/models" and fate == "busy":
            busy.set()

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if fate == "holds":
            self.log_message("held")
            threading.Event().wait()
        message = {"role": "assistant", "content": "hello"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1}
        choices = [{"message": message, "finish_reason": "stop"}]
        self.answer({"model": "m", "choices": choices, "usage": usage})

    def answer(self, body):
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_port = True

busy = threading.Event()
server = Server((given["--host"], int(given["--port"])), Handler)
def work():
    busy.wait()
    [None for _ in iter(int, 1)]

threading.Thread(target=work, daemon=True).start()
server.serve_forever()
"""


class StandIns(LocalSpawner):
    """Starts stand-ins, each with the fate that is next; the last one's is that of all further."""

    def __init__(self, *fates: str) -> None:
        super().__init__()
        self.fates = fates
        self.begun = 0
        self.children: list[ChildProcess] = []

    async def start(self, argv, **options) -> ChildProcess:
        fate = self.fates[min(self.begun, len(self.fates) - 1)]
        self.begun += 1
        child = await super().start([sys.executable, "-c", STAND_IN, fate, *argv[3:]], **options)
        self.children.append(child)
        return child

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.children[-1].pid, number)


class Running:
    """A service that is started and watched."""

    def __init__(self, spawner: StandIns, tmp_path: Path, replicas: int) -> None:
        self.spawner = spawner
        self.log = tmp_path / "llamacpp.log"
        self.notices: list[str] = []
        self.moves: list[list[str]] = []
        self.service = LlamaCppService(model=str(tmp_path / "m.gguf"), replicas=replicas)
        self.spec: ReplicatedClientSpec
        self.watching: asyncio.Task[None]

    def moved(self, service: str, urls: Sequence[str]) -> None:
        assert service == "llm"
        self.moves.append(list(urls))

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not holds():
                assert not self.watching.done() or self.watching.result()
                await asyncio.sleep(0.005)

    async def back(self, times: int) -> None:
        """Until the server has come back so many times."""
        await self.until(lambda: sum("is back after" in notice for notice in self.notices) == times)

    async def looks(self, count: int) -> None:
        """Until the newest server was asked for its health so often."""
        before = self.asked
        await self.until(lambda: self.asked >= before + count)

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def asked(self) -> int:
        return self.said.count("GET /health")


@asynccontextmanager
async def running(tmp_path: Path, *fates: str, replicas: int = 1) -> AsyncIterator[Running]:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    run = Running(StandIns(*fates), tmp_path, replicas)
    run.spec = await run.service.start("llm", run.spawner, run.notices.append, tmp_path)
    run.watching = asyncio.create_task(run.service.watch(run.moved))
    try:
        yield run
    finally:
        run.watching.cancel()
        await asyncio.gather(run.watching, return_exceptions=True)
        await run.service.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llamacpp, "CHECK_SECONDS", 0.1)
    monkeypatch.setattr(llamacpp, "MAX_FAILED_CHECKS", 3)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_call_outlives_its_server(tmp_path: Path, number: signal.Signals) -> None:
    async with running(tmp_path, "holds", "serves") as run:
        client = run.spec.connect()
        call = asyncio.create_task(client.chat(HELLO))
        await run.until(lambda: "held" in run.said)
        run.spawner.signal(number)
        assert (await asyncio.wait_for(call, PATIENCE)).text == "hello"
        await run.until(lambda: len(run.notices) == 3)  # the call may be answered before "is back" is told
        await client.close()
    how = "was killed by signal 9" if number == signal.SIGKILL else "did not respond to 3 health checks"
    first, lost, back = run.notices
    assert first.startswith("model m on llama.cpp")
    assert lost.startswith(f"the llama.cpp server of model {tmp_path}/m.gguf {how}")
    assert "llamacpp.log ends with:" in lost
    assert "held" in lost
    assert lost.endswith("\nIt is being restarted")
    assert back.startswith("the llama.cpp server is back after ")


async def test_a_server_that_cannot_live_ends_the_run(tmp_path: Path) -> None:
    async with running(tmp_path, "serves", "dies") as run:
        run.spawner.signal(signal.SIGKILL)
        with pytest.raises(
            ServiceError,
            match=r"exit code 1\. Its log .*:\n  no memory for it\nIt ended within 5 s 3 times in a row",
        ):
            await asyncio.wait_for(run.watching, PATIENCE)
    assert len(run.spawner.children) == 3
    assert [notice.count("being restarted") for notice in run.notices] == [0, 1, 1]


@pytest.mark.slow
async def test_servers_that_lived_may_die_without_end(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(replica, "SHORT_SECONDS", 0.05)
    async with running(tmp_path, "serves") as run:
        for times in range(1, 5):
            await run.looks(2)
            run.spawner.signal(signal.SIGKILL)
            await run.back(times)
        assert not run.watching.done()


async def test_a_busy_server_need_not_answer(tmp_path: Path) -> None:
    async with running(tmp_path, "busy") as run:
        await asyncio.sleep(1.0)
        assert len(run.notices) == 1


async def test_that_we_were_stopped_ourselves_is_no_silence_of_the_server(tmp_path: Path) -> None:
    async with running(tmp_path, "serves") as run:
        await run.looks(1)
        time.sleep(1.0)  # noqa: ASYNC251 - as a SIGSTOP does
        await run.looks(4)
        assert len(run.notices) == 1


async def test_a_stop_while_it_is_started_again(tmp_path: Path) -> None:
    async with running(tmp_path, "serves", "loads") as run:
        run.spawner.signal(signal.SIGKILL)
        await run.until(lambda: len(run.spawner.children) == 2)
        await run.service.stop()
        assert await run.spawner.children[-1].wait() == -signal.SIGTERM
        await asyncio.sleep(0.2)
        assert not run.watching.done()
    assert len(run.spawner.children) == 2


async def test_its_port_is_kept_while_it_is_away(tmp_path: Path) -> None:
    async with running(tmp_path, "serves", "loads") as run:
        run.spawner.signal(signal.SIGKILL)
        await run.until(lambda: len(run.spawner.children) == 2)
        port = int(run.spec.replicas[0].removesuffix("/v1").rpartition(":")[2])
        with pytest.raises(OSError, match="ddress already in use"):
            await asyncio.start_server(lambda *_: None, "127.0.0.1", port)


async def test_a_host_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(ServiceError, match=r"cannot listen on 192\.0\.2\.1 .*llm\.host must be an address"):
        await LlamaCppService(model=str(tmp_path / "m.gguf"), host="192.0.2.1").start(
            "llm", StandIns("serves"), print, tmp_path
        )


async def test_replicas_come_back_each_by_itself(tmp_path: Path) -> None:
    async with running(tmp_path, "serves", replicas=2) as run:
        first, second = run.spec.replicas
        assert first != second
        run.spawner.signal(signal.SIGKILL)
        await run.back(1)
        assert len(run.moves) == 2
        assert run.moves[0] in ([first], [second])
        assert sorted(run.moves[1]) == sorted((first, second))
    assert run.notices[0].startswith("model m on llama.cpp, 2 servers, each 8 slots")
    assert [name for name in sorted(os.listdir(tmp_path)) if name.endswith(".log")] == [
        "llamacpp-1.log",
        "llamacpp-2.log",
    ]


@pytest.mark.slow
async def test_the_run_goes_on_with_the_replicas_that_are_left(tmp_path: Path) -> None:
    async with running(tmp_path, "serves", "serves", "dies", replicas=2) as run:
        survivor, lost = run.spawner.children
        os.kill(lost.pid, signal.SIGKILL)
        await run.until(lambda: any("1 of 2 replicas are left" in notice for notice in run.notices))
        assert len(run.moves) == 1
        os.kill(survivor.pid, signal.SIGKILL)
        with pytest.raises(ServiceError, match="no memory for it"):
            await asyncio.wait_for(run.watching, PATIENCE)


async def test_one_replica_that_does_not_start_leaves_none(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    spawner = StandIns("loads", "dies")
    service = LlamaCppService(model=str(tmp_path / "m.gguf"), replicas=2)
    with pytest.raises(ServiceError, match="no memory for it"):
        await service.start("llm", spawner, lambda _: None, tmp_path)
    assert sorted([await child.wait() for child in spawner.children]) == [-signal.SIGTERM, 1]
