"""A provider's stand-in: answers each request with the next recorded shape, and notes what was asked."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from aiohttp import web

SHAPES = Path(__file__).with_name("shapes")


class Asked(NamedTuple):
    """One request that the stand-in got."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


class StandIn:
    """Where the stand-in is, and what it was asked so far."""

    def __init__(self, shapes: tuple[dict[str, Any], ...]) -> None:
        self._shapes = shapes
        self.asked: list[Asked] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        """The n-th shape to the n-th request, then the last."""
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Asked(request.method, request.path_qs, headers, orjson.loads(body) if body else None)
        shape = self._shapes[min(len(self.asked), len(self._shapes) - 1)]
        self.asked.append(asked)
        return web.Response(
            status=shape["status"],
            headers=shape.get("headers", {}),
            body=orjson.dumps(shape["body"]),
            content_type="application/json",
        )


def recorded(provider: str) -> dict[str, dict[str, Any]]:
    """The shapes of a provider, by case."""
    return orjson.loads((SHAPES / f"{provider}.json").read_bytes())


@asynccontextmanager
async def stand_in(*shapes: dict[str, Any]) -> AsyncIterator[StandIn]:
    """A stand-in that listens inside the block."""
    made = StandIn(shapes)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield made
    finally:
        await runner.cleanup()
