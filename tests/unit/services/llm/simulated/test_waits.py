"""How a simulated refusal states its wait, and that model and server are understood in the same way."""

from typing import Any

import aiohttp
import pytest

from peerloom.errors import ConfigError
from peerloom.services.llm.base import ChatRequest
from peerloom.services.llm.retry import Retryable, retry_after
from peerloom.services.llm.simulated.behavior import RetryAfterAs, SimulatedBehavior
from peerloom.services.llm.simulated.responses import wait_headers
from peerloom.services.llm.simulated.server.app import ServerConfig, serving
from peerloom.services.llm.simulated.service import SimulatedService

NOW = 1_800_000_000.25
YEAR = 365 * 24 * 3600
STATED: list[tuple[RetryAfterAs, dict[str, str], float | None]] = [
    ("seconds", {"Retry-After": "3", "retry-after-ms": "2125"}, 2.125),
    ("none", {}, None),
    ("fraction", {"Retry-After": "2.125"}, 2.125),
    ("date", {"Retry-After": "Fri, 15 Jan 2027 08:00:03 GMT"}, 2.75),
    ("garbage", {"Retry-After": "soon"}, None),
    ("year", {"Retry-After": str(YEAR)}, YEAR),
]


@pytest.mark.parametrize(("stated_as", "headers", "read"), STATED)
def test_a_wait_is_stated_in_each_way(
    stated_as: RetryAfterAs, headers: dict[str, str], read: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: NOW)
    sent = {name.decode(): value.decode() for name, value in wait_headers(2.125, stated_as)}
    assert sent == headers
    assert retry_after(sent, NOW) == read


@pytest.mark.parametrize("behavior", [{"rate_429": 1.0}, {"limit_rpm": 1}])
async def test_a_server_states_it_as_it_is_told(behavior: dict[str, Any]) -> None:
    obeyed = SimulatedBehavior(**behavior, retry_after_as="garbage")
    body = {"messages": [{"role": "user", "content": "hi"}]}
    async with serving(ServerConfig(behavior=obeyed, port=0)) as port, aiohttp.ClientSession() as session:
        for _ in range(2):
            async with session.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body) as answer:
                status, headers = answer.status, answer.headers
        assert status == 429
        assert headers["Retry-After"] == "soon"
        assert "retry-after-ms" not in headers


@pytest.mark.parametrize(("stated_as", "read"), [("none", None), ("seconds", 2.5), ("year", YEAR)])
async def test_the_model_in_process_is_understood_alike(stated_as: RetryAfterAs, read: float | None) -> None:
    service = SimulatedService(rate_429=1.0, retry_after=2.5, retry_after_as=stated_as)
    with pytest.raises(Retryable) as caught:
        await service("this process").chat(ChatRequest(messages=[{"role": "user", "content": "hi"}]), 0)
    assert caught.value.retry_after == read


def test_an_unknown_way_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"llm\.retry_after_as is 'weeks'.*seconds, none, fraction"):
        SimulatedBehavior(retry_after_as="weeks")  # type: ignore[arg-type]
