"""A real model: `coral` on llama.cpp, then the very same requests by a client that does nothing else.

Both have the same number of slots, beside an idle Ray. Tokens a second are those of as many calls, the first
to be answered on either side: so many as ours has made while it had work for all slots. Calls differ in kind,
the first ones of dialogues having long new prompts, so more of them, or fewer, would have another rate.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import orjson

from benchmarks.programs.runner import Spec, carry_out
from peerloom.recipes.coral.recipe import CoralParams, program
from peerloom.runtime.engines.ray import cluster
from peerloom.services.llm.base import Backend, ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.client.replicas import BackendFactory
from peerloom.services.llm.llamacpp.service import LlamaCppService, llamacpp_dialect
from peerloom.services.processes.spawn import LocalSpawner, Spawner


class Served(NamedTuple):
    """A call: when it was sent and answered, in Unix seconds, and the tokens of the reply."""

    sent: float
    answered: float
    tokens: int


class RecordedService(LlamaCppService):
    """The same service; each process that calls it appends its requests to a file of its own in `folder`."""

    folder = Path()

    async def start(
        self, name: str, spawner: Spawner, notify: Callable[[str], None], log_dir: Path
    ) -> ReplicatedClientSpec:
        """Start the servers, with a backend_factory that records."""
        spec = await super().start(name, spawner, notify, log_dir)
        return replace(spec, backend_factory=RecordedDial(spec.backend_factory, self.folder, spec.model))


@dataclass(frozen=True)
class RecordedDial:
    """Reaches a replica through a backend that records."""

    backend_factory: BackendFactory
    folder: Path
    model: str

    def __call__(self, name: str) -> Backend:
        """Return the replica of that name."""
        return RecordedBackend(self.backend_factory(name), self.folder, self.model)


class RecordedBackend:
    """A replica whose calls are recorded once they are answered."""

    def __init__(self, backend: Backend, folder: Path, model: str) -> None:
        self._backend = backend
        self._model = model
        self._file = (folder / f"calls-{time.time_ns()}.jsonl").open("ab", buffering=0)

    async def chat(self, request: ChatRequest, attempt: int) -> ChatReply:
        """Ask the replica, and record the call."""
        sent = time.time()
        reply = await self._backend.chat(request, attempt)
        body = orjson.loads(llamacpp_dialect().chat(request, self._model).body)
        call = {"body": body, "sent": sent, "answered": time.time(), "tokens": reply.usage.completion}
        self._file.write(orjson.dumps(call) + b"\n")
        return reply

    async def embed(self, request: EmbedRequest, attempt: int) -> EmbedReply:
        """Ask the replica."""
        return await self._backend.embed(request, attempt)

    async def healthy(self) -> bool:
        """Ask the replica."""
        return await self._backend.healthy()

    async def close(self) -> None:
        """Close the file and the replica."""
        self._file.close()
        await self._backend.close()


async def run(spec: Spec) -> dict[str, Any]:
    """Measure Peerloom, then the bare client."""
    folder, slots = Path(spec["folder"]), spec["slots"]
    service = RecordedService(slots=slots)
    service.folder = folder
    said = await carry_out(program(CoralParams(max_rounds=spec["rounds"])), spec, service)
    calls = await asyncio.to_thread(recorded, folder)
    ours = until_idle([Served(call["sent"], call["answered"], call["tokens"]) for call in calls], slots)
    bare = await replayed([call["body"] for call in calls], slots, len(ours), folder)
    figures = {
        "tokens_per_second": rate(ours),
        "bare_tokens_per_second": rate(bare),
        "llm_calls": len(calls),
        "llm_calls_counted": len(ours),
    }
    return {**said, "figures": figures}


def recorded(folder: Path) -> list[dict[str, Any]]:
    """Read the calls of all processes, in the order they were sent."""
    lines = [line for path in folder.glob("calls-*.jsonl") for line in path.read_bytes().splitlines()]
    return sorted(map(orjson.loads, lines), key=lambda call: call["sent"])


async def replayed(bodies: Sequence[dict[str, Any]], slots: int, count: int, folder: Path) -> list[Served]:
    """Send the same requests in the same order, one for each slot at a time, until `count` are answered."""
    cluster.connect("local")
    service = LlamaCppService(slots=slots)
    try:
        spec = await service.start("llm", LocalSpawner(), lambda text: None, folder)
        url = f"{spec.replicas[0]}/chat/completions"
        async with aiohttp.ClientSession() as session:
            return await saturated(session, url, bodies, slots, count)
    finally:
        await service.stop()
        cluster.stop()


async def saturated(
    session: aiohttp.ClientSession, url: str, bodies: Sequence[dict[str, Any]], at_once: int, count: int
) -> list[Served]:
    """Send them in their order, so many at once, until so many are answered."""
    left = iter(bodies)
    served: list[Served] = []
    enough = asyncio.Event()

    async def work() -> None:
        for body in left:
            sent = time.time()
            async with session.post(url, json=body, raise_for_status=True) as response:
                reply = await response.json()
            served.append(Served(sent, time.time(), reply["usage"]["completion_tokens"]))
            if len(served) >= count:
                enough.set()

    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(work()) for _ in range(at_once)]
        await enough.wait()
        for worker in workers:
            worker.cancel()
    return served[:count]


def until_idle(calls: Sequence[Served], slots: int) -> list[Served]:
    """Return the calls answered while all slots had work; all, if they never had."""
    changes = sorted([(call.sent, 1) for call in calls] + [(call.answered, -1) for call in calls])
    busy, end = 0, 0.0
    for moment, change in changes:
        if busy >= slots:  # until now
            end = moment
        busy += change
    return [call for call in calls if call.answered <= end] or list(calls)


def rate(calls: Sequence[Served]) -> float:
    """Return the tokens a second of some calls."""
    return sum(call.tokens for call in calls) / (
        max(call.answered for call in calls) - min(call.sent for call in calls)
    )
