"""A fleet as a run sees it: looked up, checked, followed."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from peerloom.errors import ConfigError, ServiceError
from peerloom.services.fleets import service
from peerloom.services.fleets.directory import Entry, Listed, write
from peerloom.services.fleets.service import FleetService
from peerloom.services.llm.base import ChatRequest
from peerloom.services.llm.simulated.server.app import ServerConfig, serving
from peerloom.services.processes.spawn import LocalSpawner

A, B = "http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEERLOOM_FLEETS", str(tmp_path))
    monkeypatch.setattr(service, "POLL_SECONDS", 0.01)
    return tmp_path / "mine.json"


def entry(*urls: str, model: str = "simulated", **more) -> Entry:
    return Entry(model=model, endpoints=tuple(Listed(url=url) for url in urls), **more)


async def started(file: Path, *, notices: list[str] | None = None, **options):
    fleet = FleetService("mine", **options)
    told = notices if notices is not None else []
    return fleet, await fleet.start("llm", LocalSpawner(), told.append, file.parent)


@asynccontextmanager
async def followed(file: Path) -> AsyncIterator[tuple[asyncio.Queue[list[str]], list[str]]]:
    """A fleet whose one endpoint is a server of ours; where it moves, and what is told."""
    notices: list[str] = []
    moves: asyncio.Queue[list[str]] = asyncio.Queue()
    async with serving(ServerConfig(port=0)) as port:
        write(file, entry(f"http://127.0.0.1:{port}/v1"))
        fleet, _ = await started(file, notices=notices)
        watching = asyncio.create_task(fleet.watch(lambda name, urls: moves.put_nowait([name, *urls])))
        try:
            yield moves, notices
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def test_calls_go_to_those_that_are_up(file: Path) -> None:
    async with serving(ServerConfig(port=0)) as port:
        up = Listed(url=f"http://127.0.0.1:{port}/v1")
        write(file, Entry(model="simulated", endpoints=(Listed(url=A, state="restarting"), up)))
        notices: list[str] = []
        _, spec = await started(file, notices=notices)
        assert (spec.model, spec.replicas) == ("simulated", (up.url,))
        client = spec.connect()
        assert (await client.chat(ChatRequest(messages=[{"role": "user", "content": "hi"}]))).text
        await client.close()
    assert notices == [f"model simulated at fleet mine, endpoints: {up.url}"]


async def test_one_endpoint_that_answers_is_enough(file: Path) -> None:
    async with serving(ServerConfig(port=0)) as port:
        write(file, entry(A, f"http://127.0.0.1:{port}/v1"))
        await started(file)


@pytest.mark.parametrize(
    ("said", "options", "message"),
    [
        (None, {}, "there is no fleet mine"),
        (entry(), {}, "no endpoint that is up; `peerloom serve status mine`"),
        (entry(A), {"model": "other"}, "serves simulated, not llm.model=other"),
        (entry(A), {}, "fleet mine: no LLM server answers at http://127.0.0.1:1/v1"),
        (entry(A, key=True), {}, "requires a key: set PEERLOOM_FLEET_KEY"),
        (entry("ftp://x"), {}, "lists an invalid endpoint"),
    ],
)
async def test_what_cannot_be_used_is_said(file: Path, said: Entry | None, options, message: str) -> None:
    if said is not None:
        write(file, said)
    with pytest.raises(ServiceError, match=message):
        await started(file, **options)


def test_an_impossible_name() -> None:
    with pytest.raises(ConfigError, match="cannot be called"):
        FleetService("a b")


async def test_the_file_is_followed(file: Path) -> None:
    async with followed(file) as (moves, notices):
        write(file, entry(A, B))
        assert await moves.get() == ["llm", A, B]
        write(file, entry(B, beat=3.0))
        assert await moves.get() == ["llm", B]
        os.unlink(file)
        assert await moves.get() == ["llm"]
        write(file, entry(A))
        assert await moves.get() == ["llm", A]
    assert "fleet mine has no endpoint that is up; its calls wait for one" in notices
    assert f"fleet mine has 2 endpoints up: {A}, {B}" in notices


async def test_a_heartbeat_moves_nothing(file: Path) -> None:
    async with followed(file) as (moves, _):
        said = service.read(file)
        write(file, Entry(model=said.model, endpoints=said.endpoints, beat=9.0))
        write(file, entry(A))
        assert await moves.get() == ["llm", A]
        assert moves.empty()


async def test_a_file_that_makes_no_sense_changes_nothing(file: Path) -> None:
    async with followed(file) as (moves, notices):
        await asyncio.to_thread(file.write_text, "{")
        while len(notices) < 2:  # noqa: ASYNC110 - a list has no event
            await asyncio.sleep(0.005)
        assert moves.empty()
        write(file, entry("http://user:hunter2@host/v1"))
        while len(notices) < 3:  # noqa: ASYNC110 - a list has no event
            await asyncio.sleep(0.005)
        assert moves.empty()
    assert "is ignored: " in notices[1]
    assert not any("hunter2" in notice for notice in notices)


async def test_another_model_is_another_fleet(file: Path) -> None:
    async with serving(ServerConfig(port=0)) as port:
        write(file, entry(f"http://127.0.0.1:{port}/v1"))
        fleet, _ = await started(file)
        write(file, entry(A, model="other"))
        with pytest.raises(ServiceError, match="now serves other, but this run began with simulated"):
            await fleet.watch(lambda name, urls: None)
