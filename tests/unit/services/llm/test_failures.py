"""Which failures of a server say something about the request, seen through the client."""

import socket
from contextlib import AsyncExitStack

from raw_server import completion, error, http, raw_server, reset

from peerloom.services.llm.base import ChatRequest
from peerloom.services.llm.openai import OpenAIClient, OpenAISpec
from peerloom.services.llm.retry import Retry

HELLO = ChatRequest(messages=[{"role": "user", "content": "hi"}])
OK = http(200, completion())


async def test_a_server_that_is_away_or_loading_costs_no_attempt() -> None:
    loading = error(503, "Loading model", type="unavailable_error")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    waits: list[float] = []
    async with AsyncExitStack() as opened:

        async def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 4:
                script = (loading, loading, loading, reset, OK)
                await opened.enter_async_context(raw_server(*script, port=port))

        spec = OpenAISpec(base_url=f"http://127.0.0.1:{port}/v1", model="m", retry=Retry(attempts=2))
        llm = OpenAIClient(spec, concurrency=1, sleep=sleep)
        assert (await llm.chat(HELLO)).text == "hello"
        assert len(waits) == 4 + 4
        await llm.close()
