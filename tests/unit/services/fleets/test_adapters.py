"""LoRA adapters of a fleet; in vLLM's place stand servers that list, load and refuse as it does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from peerloom.errors import ConfigError, ServiceError
from peerloom.services.fleets import adapters
from peerloom.services.fleets.adapters import adapters_of, load_adapter, unload_adapter
from peerloom.services.fleets.directory import Entry, Listed, write
from peerloom.services.fleets.service import FleetService
from peerloom.services.processes.spawn import LocalSpawner
from peerloom.services.secret import Secret

KEY = Secret("not-to-be-seen")


class Vllm:
    """The part of vLLM's API that adapters need."""

    def __init__(self, refuses: str = "") -> None:
        self.models = {"base": ""}
        self.refuses = refuses
        self.url = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Vllm"]:
        app = web.Application(middlewares=[self._with_key])
        app.router.add_get("/v1/models", self._list)
        app.router.add_post("/v1/load_lora_adapter", self._load)
        app.router.add_post("/v1/unload_lora_adapter", self._unload)
        async with TestServer(app) as server:
            self.url = str(server.make_url("/v1"))
            yield self

    @web.middleware
    async def _with_key(self, request: web.Request, handler: Callable) -> web.StreamResponse:
        if request.headers.get("Authorization") != "Bearer not-to-be-seen":
            return web.json_response({"error": "Unauthorized"}, status=401)
        return await handler(request)

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": name} for name in self.models]})

    async def _load(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if self.refuses or asked["lora_name"] in self.models:
            error = {"message": self.refuses or "already loaded", "type": "BadRequestError", "code": 400}
            return web.json_response({"error": error}, status=400)
        self.models[asked["lora_name"]] = asked["lora_path"]
        return web.Response(text="Success")

    async def _unload(self, request: web.Request) -> web.Response:
        del self.models[(await request.json())["lora_name"]]
        return web.Response(text="Success")


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEERLOOM_FLEETS", str(tmp_path))
    monkeypatch.setenv("PEERLOOM_FLEET_KEY", KEY.reveal())
    monkeypatch.setattr(adapters, "POLL_SECONDS", 0.01)
    return tmp_path / "mine.json"


@asynccontextmanager
async def servers(fleet: Path, *each: Vllm) -> AsyncIterator[None]:
    """A fleet of these, all up."""
    async with AsyncExitStack() as stack:
        for server in each:
            await stack.enter_async_context(server.serving())
        listed = tuple(Listed(url=server.url) for server in each)
        write(fleet, Entry(model="base", lora=True, key=True, endpoints=listed))
        yield


async def test_an_adapter_is_on_all_servers_and_calls_may_name_it(fleet: Path) -> None:
    one, two = Vllm(), Vllm()
    async with servers(fleet, one, two):
        await load_adapter(fleet, "tuned", "/weights/1", KEY)
        await load_adapter(fleet, "tuned", "/weights/1", KEY)
        assert one.models == two.models == {"base": "", "tuned": "/weights/1"}
        assert adapters_of(fleet) == {"tuned": "/weights/1"}
        spec = await FleetService("mine", model="tuned").start("llm", LocalSpawner(), print, fleet.parent)
        assert spec.model == "tuned"
        with pytest.raises(ServiceError, match=r"fleet mine serves base, tuned, not llm\.model=other"):
            await FleetService("mine", model="other").start("llm", LocalSpawner(), print, fleet.parent)
        await unload_adapter(fleet, "tuned", KEY)
        await unload_adapter(fleet, "tuned", KEY)
        assert (one.models, adapters_of(fleet)) == ({"base": ""}, {})


async def test_a_server_that_is_starting_is_waited_for(fleet: Path) -> None:
    one, two = Vllm(), Vllm()
    async with servers(fleet, one, two):
        up = Listed(url=one.url)
        entry = Entry(model="base", lora=True, endpoints=(up, Listed(url=two.url, state="restarting")))
        write(fleet, entry)
        loading = asyncio.create_task(load_adapter(fleet, "tuned", "/weights/1", KEY))
        async with asyncio.timeout(10):
            while "tuned" not in one.models:  # noqa: ASYNC110 - it is the server that loads
                await asyncio.sleep(0.01)
        assert not loading.done()
        write(fleet, Entry(model="base", lora=True, endpoints=(up, Listed(url=two.url))))
        await loading
    assert "tuned" in two.models


async def test_one_that_a_server_refuses_is_on_none(fleet: Path) -> None:
    one, two = Vllm(), Vllm(refuses="rank 64 is above 16")
    async with servers(fleet, one, two):
        with pytest.raises(ServiceError, match=r"load_lora_adapter answered HTTP 400: rank 64 is above 16"):
            await load_adapter(fleet, "tuned", "/weights/1", KEY)
        assert (one.models, adapters_of(fleet)) == ({"base": ""}, {})


async def test_one_that_is_in_use_stays_if_a_further_server_refuses_it(fleet: Path) -> None:
    one, two = Vllm(), Vllm(refuses="out of memory")
    async with servers(fleet, one):
        await load_adapter(fleet, "tuned", "/weights/1", KEY)
        async with two.serving():
            listed = (Listed(url=one.url), Listed(url=two.url))
            write(fleet, Entry(model="base", lora=True, endpoints=listed))
            with pytest.raises(ServiceError, match="out of memory"):
                await load_adapter(fleet, "tuned", "/weights/1", KEY)
        assert one.models == {"base": "", "tuned": "/weights/1"}
        assert adapters_of(fleet) == {"tuned": "/weights/1"}


async def test_a_name_stands_for_the_same_weights_for_good(fleet: Path) -> None:
    async with servers(fleet, Vllm()):
        await load_adapter(fleet, "tuned", "/weights/1", KEY)
        with pytest.raises(ConfigError, match="tuned is /weights/1 in fleet mine already"):
            await load_adapter(fleet, "tuned", "/weights/2", KEY)
        with pytest.raises(ConfigError, match="base is the fleet's model in fleet mine already"):
            await load_adapter(fleet, "base", "/weights/1", KEY)


@pytest.mark.parametrize("name", ["", "../mine", "a=b", "--x", "a b"])
async def test_a_name_that_is_no_name(fleet: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="an adapter cannot be called"):
        await load_adapter(fleet, name, "/weights/1", KEY)
    with pytest.raises(ConfigError, match="an adapter cannot be called"):
        await unload_adapter(fleet, name, KEY)


async def test_a_fleet_that_takes_none(fleet: Path) -> None:
    write(fleet, Entry(model="base", endpoints=()))
    with pytest.raises(ServiceError, match=r"fleet mine takes no adapters: .* engine=vllm lora=true"):
        await load_adapter(fleet, "tuned", "/weights/1", KEY)


async def test_a_key_that_is_wrong_is_not_in_the_message(fleet: Path) -> None:
    async with servers(fleet, Vllm()):
        with pytest.raises(ServiceError, match="HTTP 401: Unauthorized") as refused:
            await load_adapter(fleet, "tuned", "/weights/1", Secret("wrong-and-secret"))
        assert "wrong-and-secret" not in str(refused.value)
