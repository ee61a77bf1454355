"""A client as SDKs make them: some requests at once, each tried again after a wait of its own.

The waits are those of the openai SDK: 0.5 s doubling to 8 s, less up to a quarter at random; a Retry-After
of at most a minute replaces them. It never gives up.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from random import Random

import aiohttp

from peerloom.services.llm.retry import retry_after

REQUESTS = 8  # at once
_FIRST, _LONGEST, _JITTER = 0.5, 8.0, 0.25
_BELIEVED = 60.0
_OK = 200


async def ask_plainly(
    url: str, calls: int, seed: int, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Make so many calls of the server at `url`, all different, until each is answered.

    Args:
        url: up to `/v1`.
        calls: how many.
        seed: of the jitter.
        sleep: passes the time of waits; it is there for tests.
    """
    rng, numbers = Random(seed), iter(range(calls))
    async with aiohttp.ClientSession(f"{url}/") as session, asyncio.TaskGroup() as group:
        for _ in range(REQUESTS):
            group.create_task(_work(session, numbers, rng, sleep))


async def _work(
    session: aiohttp.ClientSession,
    numbers: Iterator[int],
    rng: Random,
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    for number in numbers:
        body = {"model": "simulated", "messages": [{"role": "user", "content": f"Question {number}"}]}
        tries = 0
        while (asked := await _refused(session, body)) is not None:
            await sleep(own_wait(tries, rng) if not 0 < asked <= _BELIEVED else asked)
            tries += 1


async def _refused(session: aiohttp.ClientSession, body: object) -> float | None:
    """Make a call; return None if it is answered, else the seconds its refusal asks for, 0 if none."""
    async with session.post("chat/completions", json=body) as answer:
        await answer.read()
        return None if answer.status == _OK else retry_after(answer.headers, time.time()) or 0.0


def own_wait(tries: int, rng: Random) -> float:
    """Return the seconds until the next try, after so many others."""
    return min(_LONGEST, _FIRST * 2.0 ** min(tries, 10)) * (1.0 - _JITTER * rng.random())
