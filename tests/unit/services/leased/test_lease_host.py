"""A process of a stateful service over HTTP: who may ask, and what becomes of waiting requests."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from peerloom.errors import ConfigError
from peerloom.idset import IdSet
from peerloom.protocol.leases.history import ControlHistory
from peerloom.protocol.leases.messages import (
    FENCED,
    Acquire,
    Control,
    Granted,
    Refused,
    Reply,
    Request,
    Stamp,
    TaskResumed,
    TasksEnded,
    TasksEndedBefore,
    TasksInFlight,
    decode_reply,
    digest_of_specs,
    encode,
)
from peerloom.services.builtin.kv import KeyValue, KeyValueStore
from peerloom.services.leased.auth import control_token, token
from peerloom.services.leased.host import LeaseHost
from peerloom.task import TaskId
from peerloom.turn import LeaseName

KEY = b"the key of a run"
SPECS = [b"\xc0"]


@asynccontextmanager
async def hosting(
    capacity: int = 1, history: list[Control] | None = None
) -> AsyncIterator[tuple[LeaseHost, Any]]:
    async with starting(capacity) as (host, client):
        assert await tell(client, "/history", history or []) == 200
        yield host, client


@asynccontextmanager
async def starting(capacity: int = 1) -> AsyncIterator[tuple[LeaseHost, Any]]:
    host = LeaseHost(KeyValueStore, capacity, KEY)
    async with asyncio.TaskGroup() as group, TestClient(TestServer(host.app())) as client:
        host._group = group
        yield host, client


def acquire(row: int, attempt: int = 1) -> Acquire:
    name = LeaseName(0, 1, digest_of_specs("store", SPECS))
    return Acquire(TaskId(0, row, 0), Stamp(attempt, 0, 1), name, SPECS, [b""])


async def tell(client: Any, path: str, messages: list[Control], key: str = "") -> int:
    headers = {"Authorization": f"Bearer {key or control_token(KEY)}"}
    async with client.post(path, data=encode(messages), headers=headers) as response:
        return response.status


async def send(client: Any, request: Request, key: str) -> tuple[int, Reply | None]:
    headers = {"Authorization": f"Bearer {key}"}
    async with client.post("/lease", data=encode(request), headers=headers) as response:
        body = await response.read()
        return response.status, decode_reply(body) if response.status == 200 else None


def of(request: Request) -> str:
    return token(KEY, request.id, request.stamp)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0)  # the other end of the connection is in this loop


async def test_only_the_token_of_the_very_copy_opens_a_lease() -> None:
    async with hosting() as (host, client):
        request = acquire(1)
        for key in ("", "guessed", of(acquire(2)), of(acquire(1, attempt=2)), control_token(KEY)):
            assert await send(client, request, key) == (401, None)
        assert host.table.used == 0
        assert await send(client, request, of(request)) == (200, Granted([b""]))


async def test_a_process_that_has_just_started_waits_for_the_history() -> None:
    request, newer = acquire(1), acquire(1, attempt=3)
    async with starting() as (_, client):
        assert await send(client, request, of(request)) == (503, None)
        assert await tell(client, "/control", [TasksEnded([request.id])]) == 503
        assert await tell(client, "/history", [], key=of(request)) == 401
        assert await send(client, request, of(request)) == (503, None)
        assert await tell(client, "/history", [TaskResumed(request.id, 3, [])]) == 200
        assert await send(client, request, of(request)) == (200, Refused(FENCED))
        assert await send(client, newer, of(newer)) == (200, Granted([b""]))


def test_the_history_has_the_newest_of_each_kind() -> None:
    history = ControlHistory()
    one, other, gone = (TaskId(0, row, 0) for row in range(3))
    history.add([TaskResumed(one, 2, []), TaskResumed(other, 2, []), TasksInFlight(3, 0, 1, [one, other])])
    history.add([TaskResumed(one, 4, []), TasksEnded([gone, other]), TasksInFlight(2, 0, 1, [gone])])
    [ended, *rest] = history.messages()
    assert isinstance(ended, TasksEndedBefore)
    assert set(IdSet.decode(ended.ids)) == {gone, other}
    assert rest == [TasksInFlight(3, 0, 1, [one, other]), TaskResumed(one, 4, [])]


async def test_only_the_driver_may_pass_on_what_feeders_say() -> None:
    async with hosting() as (host, client):
        request = acquire(1)
        await send(client, request, of(request))
        body = encode([TasksEnded([request.id])])
        for key, status, used in ((of(request), 401, 1), (control_token(KEY), 200, 0)):
            headers = {"Authorization": f"Bearer {key}"}
            async with client.post("/control", data=body, headers=headers) as response:
                assert response.status == status
            await asyncio.sleep(0)
            assert host.table.used == used


async def test_garbage_is_refused() -> None:
    async with hosting() as (_, client), client.post("/lease", data=b"\xc1garbage") as response:
        assert response.status == 400
        assert "not a message about leases" in await response.text()


async def test_a_request_that_waits_is_withdrawn_with_its_connection() -> None:
    async with hosting() as (host, client):
        first, second = acquire(1), acquire(2)
        await send(client, first, of(first))
        waiting = asyncio.create_task(send(client, second, of(second)))
        async with asyncio.timeout(5):
            await until(lambda: host.table.waiting == 1)
            waiting.cancel()
            await until(lambda: host.table.waiting == 0)
        assert host.table.used == 1


def test_a_task_cannot_hold_more_leases_than_a_process_has() -> None:
    with pytest.raises(ConfigError, match="per_task is 3, but each process has only leases=2"):
        KeyValue(leases=2, per_task=3, processes=2)
