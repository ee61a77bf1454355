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
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from peerloom.errors import ServiceError
from peerloom.options import FREE, SAME, Count, Options
from peerloom.services.lifecycle import Moved
from peerloom.services.llm.base import ChatRequest
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.client.routing import Routing
from peerloom.services.llm.client.service import LLMService
from peerloom.services.llm.hosted.backend import HttpDial
from peerloom.services.llm.hosted.preflight import choose_model
from peerloom.services.llm.http.endpoint import Endpoint
from peerloom.services.llm.llamacpp import weights as models
from peerloom.services.llm.llamacpp.server import KEY as SERVER_KEY
from peerloom.services.llm.providers.openai import OpenAIDialect
from peerloom.services.llm.retry import Retry
from peerloom.services.llm.usage import prices
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

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}

Placement = Literal["driver", "nodes"]
"""The machines of the replicas: the one that starts the run, or all machines of its Ray cluster."""


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


def shape(body: dict[str, Any], request: ChatRequest) -> dict[str, Any]:
    """Add choices to a body as a grammar, and a schema in llama.cpp's own field."""
    if request.choices:
        body["grammar"] = choice_grammar(request.choices)
    elif request.schema is not None:
        body["json_schema"] = request.schema
    return body


def choice_grammar(choices: Iterable[str]) -> str:
    """Return a GBNF grammar that matches exactly `choices`, e.g. `root ::= "A" | "B"`.

    It costs only the tokens of the choice itself, and a JSON schema about a dozen more.
    """
    literals = (f'"{"".join(map(_escaped, choice))}"' for choice in choices)
    return f"root ::= {' | '.join(literals)}"


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    return char if char.isprintable() else f"\\U{ord(char):08X}"


@dataclass(frozen=True, kw_only=True)
class LlamaCppServers(Options):
    """The options of a model's llama.cpp servers."""

    model: Annotated[str, SAME] = "smollm2-135m"
    """A name that `peerloom models list` prints, the path of a .gguf file, or one on the Hugging Face hub:
    `owner/repository/file.gguf` (`hf:` in front if there is such a path here too)."""
    slots: Annotated[Count, FREE] = 8
    """The number of conversations that each server processes at once; further calls wait."""
    context: Annotated[Count, FREE] = 2048
    """Tokens that each slot holds, prompt and reply together."""
    threads: Annotated[Count | None, FREE] = None
    """Compute threads on one machine, over all its servers; by default one for each core."""

    def server_command(self, path: Path, key: Secret | None = None) -> Command:
        """Return the command of a server, given the weights on this machine and the key of its calls.

        Other machines look for the weights by the model's name.
        """

        def argv(address: ServerAddress) -> list[str]:
            argv = [sys.executable, "-m", "peerloom.services.llm.llamacpp.server"]
            argv += ["--model", str(path) if address.here else self.model, "--alias", named(self.model, path)]
            argv += ["--host", address.host, "--port", str(address.port), "--slots", str(self.slots)]
            argv += ["--context", str(self.context), "--sharing", str(address.sharing)]
            if self.threads is not None:
                argv += ["--threads", str(max(1, self.threads // address.sharing))]
            return argv

        return Command(
            engine="llama.cpp",
            description=f"the llama.cpp server of model {self.model}",
            argv=argv,
            env={SERVER_KEY: key.reveal()} if key is not None else {},
            reuses_port=True,
            check_seconds=CHECK_SECONDS,
            max_failed_checks=MAX_FAILED_CHECKS,
            cpu_time_counts=True,
        )


@dataclass(frozen=True, kw_only=True)
class LlamaCppOptions(LlamaCppServers):
    """The options of llama.cpp servers that belong to a run."""

    replicas: Annotated[Count, FREE] = 1
    """The number of servers."""
    placement: Annotated[Placement, FREE] = "driver"
    """Place the servers on the machine that starts the run, or on all nodes of its Ray cluster, where a .gguf
    file must have the same path."""
    host: Annotated[str | None, FREE] = None
    """The address they listen on; by default loopback, with `placement=nodes` each node's own."""


class LlamaCppService(LLMService):
    """llama.cpp servers that are started and stopped with the run.

    Args:
        options: the fields of `LlamaCppOptions`.

    Raises:
        ConfigError: if an option is invalid.
    """

    step = "loading the model"

    def __init__(self, **options: Any) -> None:
        self._options = LlamaCppOptions(**options)
        self._model = self._options.model
        self._group: Group | None = None
        self._spec: ReplicatedClientSpec | None = None

    async def start(
        self, name: str, spawner: Spawner, notify: Callable[[str], None], log_dir: Path
    ) -> ReplicatedClientSpec:
        """Download missing weights, start the servers, and wait until they have loaded the model.

        Raises:
            ModelError: if there is no such model, or it cannot be downloaded.
            ServiceError: if a server does not start; the text has the end of its log.
        """
        path = await self._pull(notify)
        model = identity(self._model, path)
        name, dialect = named(self._model, path), llamacpp_dialect()
        given = self._options
        everywhere = given.placement == "nodes"
        self._group = Group(
            given.server_command(path), given.replicas, everywhere=everywhere, host=given.host
        )
        try:
            await self._group.start(spawner, notify, log_dir)
            endpoint = Endpoint(base_url=self._group.urls[0], timeout=_CALL_SECONDS)
            await choose_model(endpoint, dialect, name)
        except BaseException:
            await self.stop()
            raise
        many = f"{given.replicas} servers, each " if given.replicas > 1 else ""
        notify(f"model {model} on llama.cpp, {many}{given.slots} slots of {given.context} tokens")
        self._spec = ReplicatedClientSpec(
            model=model,
            replicas=self._group.urls,
            backend_factory=HttpDial(endpoint, dialect, name),
            retry=_RETRY,
            routing=Routing(eject_cap=2.0),
            price=prices.FREE,
            provider="llamacpp",
            revision=await asyncio.to_thread(models.revision, self._model, path),
        )
        return self._spec

    async def watch(self, moved: Moved) -> None:
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
        progress = _Notices(self._model, notify)
        try:
            return await asyncio.to_thread(models.pull, self._model, progress)
        finally:
            progress.cancelled = True


class _Notices:
    """Report the progress of a pull by notices: at the start of each step, and at every quarter of it."""

    def __init__(self, model: str, notify: Callable[[str], None]) -> None:
        self.cancelled = False
        self._model = model
        self._notify = notify
        self._step = ""
        self._next = 0.0

    def __call__(self, step: models.Step, done: int, total: int | None) -> None:
        if self.cancelled:
            raise ServiceError(f"the pull of model {self._model} was cancelled")
        fraction = done / total if total else 0.0
        if step != self._step:
            self._step, self._next = step, 0.0
        if fraction >= self._next:
            size = f" of {total >> 20} MB" if total else ""
            self._notify(f"{step} model {self._model}: {fraction:.0%}{size}")
            self._next = (int(fraction * 4) + 1) / 4
