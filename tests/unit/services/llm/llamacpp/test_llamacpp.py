"""The embedded engine, with the real server and the smallest model; pulled once into the user's cache."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
import pytest_asyncio

from peerloom.errors import ConfigError, ContextExceeded, ModelError, ServiceError
from peerloom.services.llm.base import ChatRequest
from peerloom.services.llm.client.client import ReplicatedClient, ReplicatedClientSpec
from peerloom.services.llm.llamacpp import weights as models
from peerloom.services.llm.llamacpp.service import LlamaCppService
from peerloom.services.processes.spawn import ChildProcess, LocalSpawner

MODEL = "smollm2-135m"
CONTEXT = 256

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]  # it may have to pull


@pytest.fixture(scope="module")
def weights() -> Path:
    try:
        return models.pull(MODEL)
    except ModelError as error:
        pytest.skip(f"needs the model {MODEL}: {error}")


@pytest.fixture(scope="module")
def notices() -> list[str]:
    return []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def spec(weights, notices, tmp_path_factory) -> AsyncIterator[ReplicatedClientSpec]:
    service = LlamaCppService(model=MODEL, slots=2, context=CONTEXT)
    yield await service.start("llm", LocalSpawner(), notices.append, tmp_path_factory.mktemp("logs"))
    await service.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def client(spec: ReplicatedClientSpec) -> AsyncIterator[ReplicatedClient]:
    client = spec.connect()
    yield client
    await client.close()


class Watched(LocalSpawner):
    """Tells which process was started first."""

    def __init__(self) -> None:
        super().__init__()
        self.child: asyncio.Future[ChildProcess] = asyncio.get_running_loop().create_future()

    async def start(self, argv, **options) -> ChildProcess:
        child = await super().start(argv, **options)
        if not self.child.done():
            self.child.set_result(child)
        return child


def still(service: str, urls: object) -> None:
    pytest.fail(f"{service} did not move, its one server comes back where it was")


def ask(text: str, **options) -> ChatRequest:
    return ChatRequest(messages=[{"role": "user", "content": text}], **{"max_tokens": 4, **options})


async def test_it_says_what_runs(spec: ReplicatedClientSpec, notices: list[str]) -> None:
    assert notices[-1] == "model smollm2-135m (Q4_0-attn-Q8_0) on llama.cpp, 2 slots of 256 tokens"


async def test_a_call(client: ReplicatedClient) -> None:
    reply = await client.chat(ask("Say hello."))
    assert reply.text
    assert reply.finish_reason == "length"
    assert reply.model == MODEL
    assert (reply.usage.completion, reply.usage.calls) == (4, 1)


async def test_a_seed_of_any_size_is_taken(client: ReplicatedClient) -> None:
    assert (await client.chat(ask("Name a town.", temperature=1.0, seed=2**62))).text


async def test_a_repeated_prefix_comes_from_the_cache(client: ReplicatedClient) -> None:
    question = "Which of these animals lays eggs: the cat, the hen, the cow or the horse? "
    await client.chat(ask(question + "Answer in one word."))
    again = await client.chat(ask(question + "Explain."))
    assert again.usage.cached >= again.usage.prompt * 0.6


@pytest.mark.parametrize("choice", ["A", 'say "yes"', "back\\slash\n", "naïve 真 🙂", "[a-z]* | ::= #"])
async def test_a_choice_is_the_reply(client: ReplicatedClient, choice: str) -> None:
    reply = await client.chat(ask("Go.", choices=(choice,), max_tokens=24))
    assert (reply.text, reply.finish_reason) == (choice, "stop")


async def test_a_choice_costs_little(client: ReplicatedClient) -> None:
    reply = await client.chat(ask("Is the sky A. blue or B. green?", choices=("A", "B"), max_tokens=8))
    assert reply.text in ("A", "B")
    assert reply.usage.completion <= 2


async def test_a_schema_is_followed(client: ReplicatedClient) -> None:
    schema = {
        "type": "object",
        "properties": {"legs": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["legs"],
        "additionalProperties": False,
    }
    reply = await client.chat(ask("How many legs has a dog?", schema=schema, max_tokens=64))
    assert 0 <= orjson.loads(reply.text)["legs"] <= 9


async def test_more_calls_than_slots_wait_their_turn(client: ReplicatedClient) -> None:
    requests = [ask(f"{number}", choices=("A", "B"), max_tokens=2) for number in range(4)]
    replies = await asyncio.gather(*map(client.chat, requests))
    assert {reply.text for reply in replies} <= {"A", "B"}


async def test_a_prompt_longer_than_the_context(client: ReplicatedClient) -> None:
    with pytest.raises(ContextExceeded, match=rf"exceeds the available context size \({CONTEXT} tokens\)"):
        await client.chat(ask("word " * 2 * CONTEXT))


@pytest.mark.slow
async def test_a_killed_server_is_started_again_and_calls_go_on(weights, tmp_path: Path) -> None:
    service = LlamaCppService(model=str(weights), slots=1, context=CONTEXT)
    spawner = Watched()
    notices: list[str] = []
    spec = await service.start("llm", spawner, notices.append, tmp_path)
    assert spec.model == weights.stem
    watching = asyncio.create_task(service.watch(still))
    client = spec.connect()
    calls = [asyncio.create_task(client.chat(ask(f"Count to {n}.", max_tokens=16))) for n in range(3)]
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    os.kill((await spawner.child).pid, signal.SIGKILL)
    assert all(reply.text for reply in await asyncio.gather(*calls))
    _, lost, back = notices
    assert "was killed by signal 9. Its log" in lost
    assert "is back after" in back
    await client.close()
    watching.cancel()
    await service.stop()


async def test_watch_is_silent_about_a_stop(weights, tmp_path: Path) -> None:
    service = LlamaCppService(model=MODEL, slots=1, context=CONTEXT)
    await service.start("llm", LocalSpawner(), lambda _: None, tmp_path)
    watching = asyncio.create_task(service.watch(still))
    await service.stop()
    await service.stop()
    await asyncio.sleep(0.01)
    assert not watching.done()
    watching.cancel()


async def test_weights_that_cannot_be_loaded(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    service = LlamaCppService(model=str(broken))
    with pytest.raises(
        ServiceError, match=r"broken\.gguf ended with exit code 1\. Its log(.|\n)*cannot load"
    ):
        await service.start("llm", LocalSpawner(), lambda _: None, tmp_path)


async def test_a_start_that_is_cancelled_leaves_no_process(weights, tmp_path: Path) -> None:
    spawner = Watched()
    service = LlamaCppService(model=MODEL, slots=1, context=CONTEXT)
    starting = asyncio.create_task(service.start("llm", spawner, lambda _: None, tmp_path))
    child = await spawner.child
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert await child.wait() in (-signal.SIGTERM, 0)


async def test_an_unknown_model_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="did you mean 'smollm2-135m'"):
        await LlamaCppService(model="smollm").start("llm", LocalSpawner(), lambda _: None, tmp_path)
    assert os.listdir(tmp_path) == []


async def test_stop_before_start() -> None:
    await LlamaCppService().stop()


@pytest.mark.parametrize("name", ["replicas", "slots", "context", "threads"])
async def test_impossible_numbers(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"llm\.{name} is 0: it must be 1 or more"):
        LlamaCppService(**{name: 0})
