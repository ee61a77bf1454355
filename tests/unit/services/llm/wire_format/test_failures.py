"""Which failures of a server say something about the request, seen through the client."""

import asyncio
import socket

from fleets import client, fleet
from raw_server import completion, error, http, raw_server, reset

from peerloom.services.llm.base import ChatRequest
from peerloom.services.llm.client.routing import Routing
from peerloom.services.llm.retry import Retry

HELLO = ChatRequest(messages=[{"role": "user", "content": "hi"}])
OK = http(200, completion())


async def test_a_server_that_is_away_or_loading_costs_no_attempt() -> None:
    loading = error(503, "Loading model", type="unavailable_error")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    quick = Routing(eject_seconds=0.005, eject_cap=0.01)
    llm = client(fleet(f"http://127.0.0.1:{port}/v1", retry=Retry(attempts=2, base=0), routing=quick))
    async with asyncio.TaskGroup() as group:
        call = group.create_task(llm.chat(HELLO))
        await asyncio.wait([call], timeout=0.1)
        assert not call.done(), "nobody listens, and it waits"
        listed = http(200, {"data": []})
        async with raw_server(loading, loading, listed, loading, listed, reset, OK, port=port):
            assert (await call).text == "hello"
    await llm.close()
