"""Agents that call services besides the model; a module of its own, so that Ray's workers can import it."""

import asyncio
import os
import signal
from typing import Any

from peerloom.agents.base import Services
from peerloom.errors import CallError
from peerloom.runtime.program import Program
from peerloom.services.llm.base import ChatRequest
from peerloom.task import Task, Turn
from peerloom.workflow import Sequence

ROLES = ("first", "second", "third", "fourth")

REQUESTS: dict[str, Any] = {"kv": {"add": "n", "value": 1}, "counters": {}}


class Counting:
    """Counts twice in each turn on the lease of the task, around a call of the model."""

    def __init__(self, service: str) -> None:
        self.service = service

    async def act(self, task: Task, services: Services) -> Turn:
        request = REQUESTS[self.service]
        values = [await services[self.service].call(request)]
        said = await services.llm.chat(ChatRequest(messages=[{"role": "user", "content": str(task.input)}]))
        values.append(await services[self.service].call(request))
        return Turn("", {"role": "assistant", "content": said.text}, value=values)


class CountingInTwo:
    """Counts in each turn on leases of two services, which the first one acquires together."""

    async def act(self, task: Task, services: Services) -> Turn:
        store, counters = services["kv"], services["counters"]
        if not task.turns:
            specs: list[tuple[str, list[Any]]] = [("kv", [{"n": 10}]), ("counters", [None, None])]
            acquired = await services.acquire(dict(specs if task.input["n"] % 2 else reversed(specs)))
            assert [len(acquired[name]) for name, _ in specs] == [1, 2]
        [first], [_, last] = store.leases, counters.leases
        values = [await first.call({"add": "n", "value": 1}), await last.call({})]
        said = await services.llm.chat(ChatRequest(messages=[{"role": "user", "content": str(task.input)}]))
        values += [await first.call({"add": "n", "value": 1}), await last.call({})]
        return Turn("", {"role": "assistant", "content": said.text}, value=values)


class OneAfterTheOther:
    """Holds a lease, releases it, and holds another one."""

    async def act(self, task: Task, services: Services) -> Turn:
        store = services["kv"]
        values: list[Any] = []
        for first in (1, 10):
            [lease] = await store.acquire({"n": first})
            values.append(await lease.call({"add": "n", "value": 1}))
            await store.release()
        return Turn("", value=values)


class Refused:
    """Is refused, breaks its counter, asks for too much; and goes on."""

    async def act(self, task: Task, services: Services) -> Turn:
        counters, said = services["counters"], list[str]()
        await counters.call({})
        for request in ({"odd": True}, {"break": True}):
            try:
                await counters.call(request)
            except CallError as error:
                said.append(str(error))
        value = await counters.call({})
        await counters.release()
        try:
            await counters.acquire(*range(1_000))
        except CallError as error:
            said.append(str(error))
        return Turn("", value=[value, *said])


class Impatient:
    """Cancels a call, and makes another one."""

    async def act(self, task: Task, services: Services) -> Turn:
        counters = services["counters"]
        await counters.call({})
        try:
            async with asyncio.timeout(0.1):
                await counters.call({"seconds": 60})
        except TimeoutError:
            pass
        return Turn("", value=await counters.call({}))


class Calling:
    """Makes one call."""

    def __init__(self, service: str) -> None:
        self.service = service

    async def act(self, task: Task, services: Services) -> Turn:
        return Turn("", value=await call(services, self.service, {"list": ""}))


class AtOnce:
    """Makes its first calls at the same time."""

    async def act(self, task: Task, services: Services) -> Turn:
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(services["kv"].call({"add": "n", "value": 1})) for _ in range(5)]
        return Turn("", value=sorted(call.result() for call in calls))


class Holding:
    """Waits for leases while it holds others."""

    async def act(self, task: Task, services: Services) -> Turn:
        await services["kv"].acquire(None)
        await services["counters"].acquire(None)
        return Turn("")


class Dying:
    """Calls a service, and the first time ends its process before the turn is over."""

    def __init__(self, service: str) -> None:
        self.service = service

    async def act(self, task: Task, services: Services) -> Turn:
        echoed = await call(services, self.service, {"n": task.input["n"]})
        if not os.path.exists(task.input["died"]):  # noqa: ASYNC240
            await asyncio.sleep(0.1)  # for the journal
            os.mkdir(task.input["died"])
            os.kill(os.getpid(), signal.SIGKILL)
        again = await call(services, self.service, {"n": task.input["n"]})
        return Turn("", value=[echoed, again])


async def call(services: Services, service: str, request: Any) -> Any:
    """Call a service, of which the model is one."""
    if service != "llm":
        return await services[service].call(request)
    chat = ChatRequest(messages=[{"role": "user", "content": str(request)}])
    return (await services.llm.chat(chat)).text


def counting_in_two() -> Program:
    """Every turn counts in two services."""
    return Program(Sequence(*ROLES), {role: CountingInTwo() for role in ROLES})


def counting(service: str) -> Program:
    """Every turn counts."""
    return Program(Sequence(*ROLES), {role: Counting(service) for role in ROLES})


def alone(agent: Any) -> Program:
    """One turn of an agent."""
    return Program(Sequence("only"), {"only": agent})
