"""The embedded model: llama.cpp's server in a process of its own, started, watched and stopped by the run.

A server that dies or gets stuck is started again at the same address, which the run holds meanwhile, so
that no other program can take it; calls in flight wait for it (`retry`). One that cannot live ends the run.

Weights are pulled first if they are not there. Calls go through the client of every OpenAI-compatible
server; only choices and schemas are asked in llama.cpp's own way, which costs fewer tokens.
"""

import asyncio
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from peerloom.errors import ConfigError, ServiceError
from peerloom.services.llm import models
from peerloom.services.llm.base import ChatRequest
from peerloom.services.llm.dialects.openai import OpenAIDialect
from peerloom.services.llm.endpoint import Endpoint
from peerloom.services.llm.fleet import FleetSpec
from peerloom.services.llm.grammar import choice_grammar
from peerloom.services.llm.http import HttpDial
from peerloom.services.llm.llamacpp_process import ServerProcess
from peerloom.services.llm.preflight import choose_model
from peerloom.services.llm.retry import Retry
from peerloom.services.llm.routing import Routing
from peerloom.services.spawn import Spawner

SHORT_SECONDS = 5.0
SHORT_LIVES = 3
"""So many servers in a row that each ended within `SHORT_SECONDS` of listening, and the run ends."""

_CALL_SECONDS = 86_400.0
"""No call times out in practice: it may wait long for a slot, and a server that dies is seen by `watch`."""
_RETRY = Retry(cap=2.0, max_elapsed=_CALL_SECONDS)
"""Back soon after a restart, which takes a second or so and as long as `watch` has hope."""


def shape(body: dict[str, Any], request: ChatRequest) -> dict[str, Any]:
    """Choices as a grammar, a schema as llama.cpp's own field."""
    if request.choices:
        body["grammar"] = choice_grammar(request.choices)
    elif request.schema is not None:
        body["json_schema"] = request.schema
    return body


class LlamaCppService:
    """A llama.cpp server that lives as long as the run.

    Args:
        model: a name that `models.listing` gives, the path of a .gguf file, or one on the Hugging Face hub,
            `owner/repository/file.gguf`.
        slots: sequences it works on at once; further calls wait their turn. A reply's token costs 19 ms
            of CPU time alone, 14 ms with 4 slots, 12 ms with 8, and no less with 16 (SmolLM2-135M).
        context: tokens of each slot, prompt and reply together.
        threads: that compute; default one for each core.
        host: the address it listens on, which must be one of this machine.
        progress: told how far a pull is, see `models.Progress`; default a notice now and then.

    Raises:
        ConfigError: if a number is below 1.
    """

    def __init__(
        self,
        *,
        model: str = "smollm2-135m",
        slots: int = 8,
        context: int = 2048,
        threads: int | None = None,
        host: str = "127.0.0.1",
        progress: models.Progress | None = None,
    ) -> None:
        for name, value in (("slots", slots), ("context", context), ("threads", threads)):
            if value is not None and value < 1:
                raise ConfigError(f"llm.{name} is {value}: use 1 or more")
        self._model = model
        self._slots = slots
        self._context = context
        self._threads = threads
        self._host = host
        self._progress = progress
        self._server: ServerProcess | None = None
        self._launch: Callable[[], Awaitable[ServerProcess]] | None = None
        self._address: socket.socket | None = None
        self._notify: Callable[[str], None] = print
        self._stopping = False

    async def start(self, spawner: Spawner, notify: Callable[[str], None], log_dir: Path) -> FleetSpec:
        """Pull the weights if need be, start the server, and wait until it has loaded them.

        Raises:
            ModelError: if there is no such model, or it cannot be pulled.
            ServiceError: if the server does not come up; with its last words.
        """
        path = await self._pull(notify)
        name = path.stem if self._model not in models.KNOWN else self._model
        what = f"the llama.cpp server of model {self._model}"
        self._stopping = False
        self._notify = notify
        try:
            self._address = await _held_address(self._host)
            argv = self._argv(path, name, self._address.getsockname()[1])
            self._launch = partial(ServerProcess.start, spawner, argv, what, log_dir / "llamacpp.log")
            self._server = await self._launch()
            url = await self._server.listening()
            endpoint = Endpoint(base_url=f"{url}/v1", timeout=_CALL_SECONDS)
            dialect = OpenAIDialect(structured="none", shape=shape)
            await choose_model(endpoint, dialect, name)
            spec = FleetSpec(
                model=name,
                replicas=(endpoint.base_url,),
                dial=HttpDial(endpoint, dialect, name),
                retry=_RETRY,
                routing=Routing(eject_cap=2.0),
            )
        except BaseException:
            await self.stop()
            raise
        notify(f"model {name} on llama.cpp, {self._slots} slots of {self._context} tokens")
        return spec

    async def watch(self, moved: Callable[[str, Sequence[str]], None]) -> None:
        """Start the server again whenever it has died or got stuck; wait for ever, if it was stopped.

        Raises:
            ServiceError: when it dies again and again as soon as it is started; with its last words.
        """
        if self._server is not None and self._launch is not None:
            short = 0
            end = await self._server.end()
            while not self._stopping:
                short = short + 1 if self._server.lived < SHORT_SECONDS else 0
                if short == SHORT_LIVES:
                    raise ServiceError(
                        f"{end}\nIt ended within {SHORT_SECONDS:g} s {short} times in a row, "
                        "so it is not started again"
                    )
                self._notify(f"{end}\nIt is started again")
                end = await self._another(self._launch)
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Stop the server. May be called at any time, and twice."""
        self._stopping = True
        if self._server is not None:
            await self._server.stop()
        if self._address is not None:
            self._address.close()

    async def _another(self, launch: Callable[[], Awaitable[ServerProcess]]) -> str:
        """Start a server and wait for its end; how that was."""
        began = time.monotonic()
        self._server = await launch()
        if self._stopping:
            await self._server.stop()
        try:
            await self._server.listening()
        except ServiceError as error:
            await self._server.stop()
            return str(error)
        self._notify(f"the llama.cpp server is back after {time.monotonic() - began:.1f} s")
        return await self._server.end()

    def _argv(self, path: Path, name: str, port: int) -> list[str]:
        argv = [sys.executable, "-m", "peerloom.services.llm.llamacpp_server"]
        argv += ["--model", str(path), "--alias", name, "--host", self._host, "--port", str(port)]
        argv += ["--slots", str(self._slots), "--context", str(self._context)]
        return argv if self._threads is None else [*argv, "--threads", str(self._threads)]

    async def _pull(self, notify: Callable[[str], None]) -> Path:
        """The weights, fetched in a thread that a cancellation ends too."""
        report = self._progress or _Notices(self._model, notify)
        cancelled = threading.Event()

        def progress(done: int, total: int | None) -> None:
            if cancelled.is_set():
                raise ServiceError(f"the pull of model {self._model} was cancelled")
            report(done, total)

        try:
            return await asyncio.to_thread(models.pull, self._model, progress)
        finally:
            cancelled.set()


async def _held_address(host: str) -> socket.socket:
    """A free port of `host`, bound but not listening: only our server, which asks to share it, can too."""
    loop = asyncio.get_running_loop()
    held = None
    try:
        family, kind, proto, _, address = (await loop.getaddrinfo(host, 0, type=socket.SOCK_STREAM))[0]
        held = socket.socket(family, kind, proto)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(address)
    except OSError as error:
        if held is not None:
            held.close()
        raise ServiceError(
            f"llama.cpp cannot listen on {host} ({error.strerror}): "
            "llm.host must be an address of this machine"
        ) from error
    return held


class _Notices:
    """Tells of a pull in notices: at its begin, and at every quarter."""

    def __init__(self, model: str, notify: Callable[[str], None]) -> None:
        self._model = model
        self._notify = notify
        self._next = 0.0

    def __call__(self, done: int, total: int | None) -> None:
        share = done / total if total else 0.0
        if share >= self._next:
            self._notify(
                f"pulling model {self._model}: {share:.0%}" + (f" of {total >> 20} MB" if total else "")
            )
            self._next = (int(share * 4) + 1) / 4
