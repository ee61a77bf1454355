"""A run to be steered: a model that answers when the test says so, and the run's control at hand."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from peerloom.control.client import Channel, find
from peerloom.control.server import Control
from peerloom.events import Hooks, MemberLost, Notice, Progress, RunStarted, ViewChanged
from peerloom.observe.log import LogHooks
from peerloom.runtime.driver.run import Run
from peerloom.runtime.driver.session import Session
from peerloom.runtime.program import Program
from peerloom.runtime.services import RunServices
from peerloom.runtime.settings import RunSettings
from peerloom.services.llm.hosted.providers import OpenAIService
from peerloom.services.llm.simulated.responses import Headers, Response
from peerloom.services.llm.simulated.server.http1 import HttpRequest, ServerConnection
from peerloom.sink.read import read_rows
from peerloom.sink.rundir.directory import RunDir
from peerloom.source.memory import RowsSource

MODELS = orjson.dumps({"data": [{"id": "held"}]})
REPLY = orjson.dumps(
    {"choices": [{"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}]}
)
LIMIT = orjson.dumps({"error": {"message": "slow down", "code": "rate_limit_exceeded"}})


class HeldModel:
    """Keeps calls waiting until they are released; `calls` in all, `peak` is how many waited at once."""

    def __init__(self) -> None:
        self.calls = 0
        self.peak = 0
        self.waiting: list[ServerConnection] = []
        self.connections: set[ServerConnection] = set()
        self._open = False
        self._refusal: Headers = ()
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    async def listen(self) -> None:
        """Be there, always at the same port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: ServerConnection(self, self.connections), "127.0.0.1", self._port
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def leave(self) -> None:
        """Be gone; calls that wait break off."""
        self.waiting.clear()
        assert self._server is not None
        self._server.close()
        for connection in list(self.connections):
            connection.close()
        await self._server.wait_closed()

    def __call__(self, request: HttpRequest, connection: ServerConnection) -> None:
        if request.path.endswith(b"/models"):
            connection.reply(Response(200, MODELS))
            return
        self.calls += 1
        if self._refusal:
            connection.reply(Response(429, LIMIT, self._refusal))
            return
        if self._open:
            connection.reply(Response(200, REPLY))
            return
        self.waiting.append(connection)
        self.peak = max(self.peak, len(self.waiting))
        self._changed.set()

    async def until_waiting(self, count: int) -> None:
        while len(self.waiting) < count:
            self._changed.clear()
            await self._changed.wait()

    def release(self) -> None:
        """Answer what waits."""
        waiting, self.waiting = self.waiting, []
        for connection in waiting:
            connection.reply(Response(200, REPLY))

    def refuse(self, retry_after: str) -> None:
        """From now on refuse calls, with that Retry-After."""
        self._refusal = ((b"Retry-After", retry_after.encode()),)

    def open(self) -> None:
        """From now on nothing waits."""
        self._open, self._refusal = True, ()
        self.release()


class Watch(Hooks):
    """Waits for snapshots."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.views: list[ViewChanged] = []
        self.notices: list[str] = []
        self.lost: list[MemberLost] = []
        self.latest = Progress(0.0, None, 0, 0)
        self._changed = asyncio.Event()

    def run_started(self, event: RunStarted) -> None:
        self.started.set()

    def view_changed(self, event: ViewChanged) -> None:
        self.views.append(event)
        self._changed.set()

    def member_lost(self, event: MemberLost) -> None:
        self.lost.append(event)

    def notice(self, event: Notice) -> None:
        self.notices.append(event.text)

    def progress(self, event: Progress) -> None:
        self.latest = event
        self._changed.set()

    async def until(self, true: Callable[[Progress], bool]) -> Progress:
        while not true(self.latest):
            await self.next()
        return self.latest

    async def next(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class Steered:
    """A run that goes on."""

    def __init__(
        self, run_dir: Path, model: HeldModel, watch: Watch, ending: "asyncio.Task[dict[str, Any]]"
    ) -> None:
        self.run_dir = run_dir
        self.model = model
        self.watch = watch
        self.ending = ending

    async def ask(
        self, verb: str, content: dict[str, Any] | None = None, channel: Channel | None = None
    ) -> Any:
        """As the command line asks, from another thread."""
        return await asyncio.to_thread((channel or find(self.run_dir)).request, verb, content)

    def rows(self) -> list[dict[str, Any]]:
        rows = list(read_rows(self.run_dir))
        assert len({row["id"] for row in rows}) == len(rows)
        return rows


@contextlib.asynccontextmanager
async def going(
    program: Program, rows: Sequence[dict[str, Any]], run_dir: Path, **settings: Any
) -> AsyncIterator[Steered]:
    """A run of the program with a held model; inside, it can be controlled."""
    async with asyncio.timeout(90):
        model, watch, control = HeldModel(), Watch(), Control()
        await model.listen()
        llm = OpenAIService(base_url=model.url, model="held", api_key="none")
        claimed = RunDir.claim(run_dir)
        shape = RunSettings(peers=1, **settings)
        run = Run(
            program,
            RowsSource(rows),
            RunServices(llm),
            shape,
            Session(claimed),
            recipe="test",
            hooks=[LogHooks(claimed.log), watch, control],
        )

        async def execute() -> dict[str, Any]:
            async with control.serving(run.control):
                return await run.execute()

        ending = asyncio.create_task(execute())
        try:
            await asyncio.wait(
                (ending, asyncio.ensure_future(watch.started.wait())), return_when="FIRST_COMPLETED"
            )
            while not (run_dir / ".peerloom/control.json").exists():  # noqa: ASYNC110 - as another process would
                await asyncio.sleep(0.01)
            yield Steered(run_dir, model, watch, ending)
            model.open()
            await ending
        finally:
            ending.cancel()
            await asyncio.wait((ending,))
            claimed.release()
            await model.leave()
