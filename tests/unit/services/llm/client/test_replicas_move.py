"""Replicas that come and go while calls are made."""

import asyncio
from typing import Any

from peerloom.services.llm.client.context import ClientContext
from peerloom.services.llm.client.replicas import Replicas
from peerloom.services.llm.client.routing import Routing


class Answering:
    """A replica that answers with its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def healthy(self) -> bool:
        return True

    async def close(self) -> None:
        """Nothing to close."""


def replicas(told: list[str], *names: str) -> Replicas:
    dial: Any = Answering
    return Replicas(
        "m", names, dial, Routing(), clock=lambda: 0.0, on_down=lambda why, _: told.append(why), patient=True
    )


async def answer(replicas: Replicas) -> str:
    with replicas.attempt("") as backend:
        return backend.name  # type: ignore[attr-defined]


async def test_one_that_has_left_gets_no_more_calls() -> None:
    both = replicas([], "a", "b")
    both.move(["b"])
    assert [await answer(both) for _ in range(3)] == ["b"] * 3


async def test_without_any_calls_wait_and_it_is_told_why() -> None:
    told: list[str] = []
    one = replicas(told, "a")
    one.move([])
    assert told == ["it has no replicas at present"]
    waiting = asyncio.create_task(one.available())
    await asyncio.sleep(0)
    assert not waiting.done()
    one.move(["b"])
    await waiting
    assert await answer(one) == "b"
    assert told[-1] == ""


def test_an_older_change_of_endpoints_is_not_heard() -> None:
    context, moves = ClientContext(), list[list[str]]()
    context.on_move("llm", lambda urls: moves.append(list(urls)))
    context.move("llm", 2, ["http://two"])
    context.move("llm", 1, ["http://one"])
    context.move("another", 3, ["http://three"])
    assert moves == [["http://two"]]
