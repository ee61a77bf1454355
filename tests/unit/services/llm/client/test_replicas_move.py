"""Replicas that come and go while calls are made."""

import asyncio
from typing import Any

import pytest

from peerloom.services.llm.client.replicas import AttemptFailed, Replicas
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


async def asked(backend: Any) -> str:
    return backend.name


async def test_one_that_has_left_since_it_was_chosen_fails_like_any_other() -> None:
    both = replicas([], "a", "b")
    both.move(["b"])
    with pytest.raises(AttemptFailed, match="the replica is gone"):
        await both.ask("a", asked)
    assert await both.ask(both.choose(""), asked) == "b"


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
    assert await one.ask(one.choose(""), asked) == "b"
    assert told[-1] == ""
