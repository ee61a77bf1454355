"""The embedded model: llama.cpp servers in processes of their own, started, watched and stopped by the run.

Each is started again when it dies or gets stuck (`fleets.replica`), at the same address, which the run
holds meanwhile so that no other program can take it; calls in flight go to another replica, or wait for it
(`retry`). Only when none can live does the run end. With `placement="nodes"` they are spread over the
machines of the run's cluster.

Weights are pulled first if they are not there. Calls go through the client of every OpenAI-compatible
server; only choices and schemas are asked in llama.cpp's own way, which costs fewer tokens.
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

LOOK_SECONDS = 1.0
"""Between two looks whether a server is alive, and how long the answer of one may take."""
LOOKS = 5
"""As many in a row without a sign of life, and a server is killed."""

_CALL_SECONDS = 86_400.0
"""No call times out in practice: it may wait long for a slot, and a server that dies is seen by `watch`."""
_RETRY = Retry(cap=2.0, max_elapsed=_CALL_SECONDS)
"""Back soon after a restart, which takes a second or so and as long as `watch` has hope."""

Placement = Literal["driver", "nodes"]
"""All replicas on the machine that starts the run, or over all machines of its Ray cluster."""


def shape(body: dict[str, Any], request: ChatRequest) -> dict[str, Any]:
    """Choices as a grammar, a schema as llama.cpp's own field."""
    if request.choices:
        body["grammar"] = choice_grammar(request.choices)
    elif request.schema is not None:
        body["json_schema"] = request.schema
    return body


def command(
    model: str, path: Path, *, slots: int, context: int, threads: int | None, key: Secret | None = None
) -> Command:
    """How a llama.cpp server of a model is run.

    Args:
        model: as `LlamaCppService` takes it; a machine without `path` looks for it by that name.
        path: its weights, here.
        slots: see `LlamaCppService`.
        context: see `LlamaCppService`.
        threads: of all servers on one machine together; None is one for each core.
        key: what calls have to show, if anything.
    """

    def argv(seat: ServerAddress) -> list[str]:
        argv = [sys.executable, "-m", "peerloom.services.llm.llamacpp.server"]
        argv += ["--model", str(path) if seat.here else model, "--alias", named(model, path)]
        argv += ["--host", seat.host, "--port", str(seat.port), "--slots", str(slots)]
        argv += ["--context", str(context), "--sharing", str(seat.sharing)]
        return argv if threads is None else [*argv, "--threads", str(max(1, threads // seat.sharing))]

    return Command(
        engine="llama.cpp",
        what=f"the llama.cpp server of model {model}",
        argv=argv,
        env={SERVER_KEY: key.reveal()} if key is not None else {},
        keeps_port=True,
        look=LOOK_SECONDS,
        looks=LOOKS,
        cpu_is_life=True,
    )


def named(model: str, path: Path) -> str:
    """What a model is called in calls."""
    return path.stem if model not in models.KNOWN else model


def identity(model: str, path: Path) -> str:
    """What decides a model's replies, for run directories and the cache: of a known one, the format too."""
    name = named(model, path)
    return f"{name} ({path.stem.rpartition('.')[2]})" if model in models.KNOWN else name


def llamacpp_dialect() -> OpenAIDialect:
    """How llama.cpp's server is spoken to."""
    return OpenAIDialect(structured="none", shape=shape)


class LlamaCppService:
    """llama.cpp servers that live as long as the run.

    Args:
        model: a name that `models.listing` gives, or the path of a .gguf file.
        replicas: how many servers.
        slots: sequences each works on at once; further calls wait their turn. A reply's token costs 19 ms
            of CPU time alone, 14 ms with 4 slots, 12 ms with 8, and no less with 16 (SmolLM2-135M).
        context: tokens of each slot, prompt and reply together.
        threads: that compute on one machine, over all its replicas; default one for each core.
        placement: see `Placement`; on other machines a .gguf file must have the same path.
        host: the address they listen on; default loopback, with `placement="nodes"` each machine's own.
        progress: told how far a pull is, see `models.Progress`; default a notice now and then.

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
        """Pull the weights if need be, start the servers, and wait until they have loaded them.

        Raises:
            ModelError: if there is no such model, or it cannot be pulled.
            ServiceError: if a server does not come up; with its last words.
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
            dial=HttpDial(endpoint, dialect, name),
            retry=_RETRY,
            routing=Routing(eject_cap=2.0),
            price=FREE,
        )
        return self._spec

    async def watch(self, moved: Callable[[str, Sequence[str]], None]) -> None:
        """Start servers again that have died or got stuck; wait for ever, if they were stopped.

        Raises:
            ServiceError: when none can be brought back; with the last one's last words.
        """
        if self._group is None or self._spec is None:
            await asyncio.Event().wait()
            return
        group, service, told = self._group, self._spec.service, list(self._spec.replicas)

        def changed() -> None:
            if (urls := list(group.urls)) != told:
                told[:] = urls
                moved(service, urls)

        await group.watch(changed)

    async def stop(self) -> None:
        """Stop the servers. May be called at any time, and twice."""
        if self._group is not None:
            await self._group.stop()

    async def _pull(self, notify: Callable[[str], None]) -> Path:
        """The weights, fetched in a thread that a cancellation ends too."""
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
    """Tells of each step of a pull in notices: at its begin, and at every quarter."""

    def __init__(self, model: str, notify: Callable[[str], None]) -> None:
        self._model = model
        self._notify = notify
        self._step = ""
        self._next = 0.0

    def __call__(self, step: models.Step, done: int, total: int | None) -> None:
        share = done / total if total else 0.0
        if step != self._step:
            self._step, self._next = step, 0.0
        if share >= self._next:
            size = f" of {total >> 20} MB" if total else ""
            self._notify(f"{step} model {self._model}: {share:.0%}{size}")
            self._next = (int(share * 4) + 1) / 4
