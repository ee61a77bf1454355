"""Run the embedded model in llama.cpp server processes that the run starts, supervises and stops.

A server that dies or gets stuck is restarted (`services.processes.replica`) at the same address, whose port
stays reserved; calls in flight go to another replica, or are retried until it is back. The run ends only if
no server can be restarted. With `placement="nodes"` the servers are distributed over the machines of the
run's cluster.

Missing weights are downloaded first. Calls use the client of OpenAI-compatible servers, but choices and
schemas use llama.cpp's own fields, which cost fewer tokens.
"""

import asyncio
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from peerloom.errors import ConfigError, ServiceError
from peerloom.services.llm.base import ChatRequest
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.client.routing import Routing
from peerloom.services.llm.hosted.backend import HttpDial
from peerloom.services.llm.hosted.preflight import choose_model
from peerloom.services.llm.http.endpoint import Endpoint
from peerloom.services.llm.llamacpp import weights as models
from peerloom.services.llm.llamacpp.grammar import choice_grammar
from peerloom.services.llm.llamacpp.server import KEY as SERVER_KEY
from peerloom.services.llm.providers.openai import OpenAIDialect
from peerloom.services.llm.retry import Retry
from peerloom.services.llm.usage.prices import FREE
from peerloom.services.processes.group import Group
from peerloom.services.processes.server import Command, ServerAddress
from peerloom.services.processes.spawn import Spawner
from peerloom.services.secret import Secret

CHECK_SECONDS = 1.0
"""The interval between health checks of a server, and the timeout of one."""
MAX_FAILED_CHECKS = 5
"""The number of failed health checks in a row after which a server is killed."""

_CALL_SECONDS = 86_400.0
"""In practice no timeout: a call may wait long for a slot, and `watch` detects a server that dies."""
_RETRY = Retry(cap=2.0, max_elapsed=_CALL_SECONDS)
"""Short delays, since a restart takes about a second, and no time limit, since `watch` ends the run."""

Placement = Literal["driver", "nodes"]
"""The machines of the replicas: the one that starts the run, or all machines of its Ray cluster."""


def shape(body: dict[str, Any], request: ChatRequest) -> dict[str, Any]:
    """Add choices to a body as a grammar, and a schema in llama.cpp's own field."""
    if request.choices:
        body["grammar"] = choice_grammar(request.choices)
    elif request.schema is not None:
        body["json_schema"] = request.schema
    return body


def command(
    model: str, path: Path, *, slots: int, context: int, threads: int | None, key: Secret | None = None
) -> Command:
    """Return the command of a model's llama.cpp servers.

    Args:
        model: see `LlamaCppService`; other machines look for the weights by that name.
        path: the weights on this machine.
        slots: see `LlamaCppService`.
        context: see `LlamaCppService`.
        threads: the number of threads of all servers on one machine together; None for one per core.
        key: the key that calls must present, if any.
    """

    def argv(address: ServerAddress) -> list[str]:
        argv = [sys.executable, "-m", "peerloom.services.llm.llamacpp.server"]
        argv += ["--model", str(path) if address.here else model, "--alias", named(model, path)]
        argv += ["--host", address.host, "--port", str(address.port), "--slots", str(slots)]
        argv += ["--context", str(context), "--sharing", str(address.sharing)]
        return argv if threads is None else [*argv, "--threads", str(max(1, threads // address.sharing))]

    return Command(
        engine="llama.cpp",
        description=f"the llama.cpp server of model {model}",
        argv=argv,
        env={SERVER_KEY: key.reveal()} if key is not None else {},
        reuses_port=True,
        check_seconds=CHECK_SECONDS,
        max_failed_checks=MAX_FAILED_CHECKS,
        cpu_time_counts=True,
    )


def named(model: str, path: Path) -> str:
    """Return a model's name in calls."""
    return path.stem if model not in models.KNOWN else model


def identity(model: str, path: Path) -> str:
    """Return a name that identifies a model's replies in run directories and the cache.

    The name of a known model includes the format of its weights.
    """
    name = named(model, path)
    return f"{name} ({path.stem.rpartition('.')[2]})" if model in models.KNOWN else name


def llamacpp_dialect() -> OpenAIDialect:
    """Return the dialect of llama.cpp's server."""
    return OpenAIDialect(structured="none", shape=shape)


class LlamaCppService:
    """llama.cpp servers that are started and stopped with the run.

    Args:
        model: a name that `weights.listing` returns, `hf:owner/repository/file.gguf`, or the path of a .gguf
            file.
        replicas: the number of servers.
        slots: the number of concurrent sequences of each server; further calls wait. A reply's token costs
            19 ms of CPU time with 1 slot, 14 ms with 4, 12 ms with 8, and no less with 16 (SmolLM2-135M).
        context: the token limit of each slot, for prompt and reply together.
        threads: the number of compute threads of all replicas on one machine; default one per core.
        placement: see `Placement`; a .gguf file must have the same path on all machines.
        host: the address they listen on; default loopback, with `placement="nodes"` each machine's own.
        progress: called with the progress of a download, see `weights.Progress`; default notices.

    Raises:
        ConfigError: if a number is below 1.
    """

    step = "loading the model"

    def __init__(
        self,
        *,
        model: str = "smollm2-135m",
        replicas: int = 1,
        slots: int = 8,
        context: int = 2048,
        threads: int | None = None,
        placement: Placement = "driver",
        host: str | None = None,
        progress: models.Progress | None = None,
    ) -> None:
        numbers = {"replicas": replicas, "slots": slots, "context": context, "threads": threads}
        for name, value in numbers.items():
            if value is not None and value < 1:
                raise ConfigError(f"llm.{name} is {value}: use 1 or more")
        self._model = model
        self._count = replicas
        self._slots = slots
        self._context = context
        self._threads = threads
        self._everywhere = placement == "nodes"
        self._host = host
        self._progress = progress
        self._group: Group | None = None
        self._spec: ReplicatedClientSpec | None = None

    async def start(
        self, spawner: Spawner, notify: Callable[[str], None], log_dir: Path
    ) -> ReplicatedClientSpec:
        """Download missing weights, start the servers, and wait until they have loaded the model.

        Raises:
            ModelError: if there is no such model, or it cannot be downloaded.
            ServiceError: if a server does not start; the text has the end of its log.
        """
        path = await self._pull(notify)
        model = identity(self._model, path)
        name, dialect = named(self._model, path), llamacpp_dialect()
        run = command(self._model, path, slots=self._slots, context=self._context, threads=self._threads)
        self._group = Group(run, self._count, everywhere=self._everywhere, host=self._host)
        try:
            await self._group.start(spawner, notify, log_dir)
            endpoint = Endpoint(base_url=self._group.urls[0], timeout=_CALL_SECONDS)
            await choose_model(endpoint, dialect, name)
        except BaseException:
            await self.stop()
            raise
        many = f"{self._count} servers, each " if self._count > 1 else ""
        notify(f"model {model} on llama.cpp, {many}{self._slots} slots of {self._context} tokens")
        self._spec = ReplicatedClientSpec(
            model=model,
            replicas=self._group.urls,
            backend_factory=HttpDial(endpoint, dialect, name),
            retry=_RETRY,
            routing=Routing(eject_cap=2.0),
            price=FREE,
        )
        return self._spec

    async def watch(self, moved: Callable[[str, Sequence[str]], None]) -> None:
        """Restart servers that have died or got stuck. After `stop`, wait for ever.

        Raises:
            ServiceError: when no server can be restarted; the text has the end of the last one's log.
        """
        if self._group is None or self._spec is None:
            await asyncio.Event().wait()
            return
        group, service, known = self._group, self._spec.service, self._spec.replicas

        def changed() -> None:
            nonlocal known
            if group.urls != known:
                known = group.urls
                moved(service, known)

        await group.watch(changed)

    async def stop(self) -> None:
        """Stop the servers. May be called at any time, and twice."""
        if self._group is not None:
            await self._group.stop()

    async def _pull(self, notify: Callable[[str], None]) -> Path:
        """Download the weights in a thread, which a cancellation ends too, and return their path."""
        report = self._progress or _Notices(self._model, notify)
        cancelled = threading.Event()

        def progress(step: models.Step, done: int, total: int | None) -> None:
            if cancelled.is_set():
                raise ServiceError(f"the pull of model {self._model} was cancelled")
            report(step, done, total)

        try:
            return await asyncio.to_thread(models.pull, self._model, progress)
        finally:
            cancelled.set()


class _Notices:
    """Report the progress of a pull by notices: at the start of each step, and at every quarter of it."""

    def __init__(self, model: str, notify: Callable[[str], None]) -> None:
        self._model = model
        self._notify = notify
        self._step = ""
        self._next = 0.0

    def __call__(self, step: models.Step, done: int, total: int | None) -> None:
        fraction = done / total if total else 0.0
        if step != self._step:
            self._step, self._next = step, 0.0
        if fraction >= self._next:
            size = f" of {total >> 20} MB" if total else ""
            self._notify(f"{step} model {self._model}: {fraction:.0%}{size}")
            self._next = (int(fraction * 4) + 1) / 4
