"""The HTTP client against a server that does everything wrong a server can."""

import asyncio
import pickle
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fleets import client as client_of
from fleets import fleet
from raw_server import completion, error, half, hang, http, raw_server, reset, slow

from peerloom.errors import (
    ConfigError,
    ContentFiltered,
    ContextExceeded,
    LLMDenied,
    LLMRejected,
    LLMUnavailable,
    ServiceError,
)
from peerloom.services.llm.base import ChatRequest
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.hosted.providers import OpenAIService
from peerloom.services.llm.hosted.service import CallPolicy
from peerloom.services.llm.http.endpoint import Endpoint
from peerloom.services.llm.providers.openai import OpenAIDialect
from peerloom.services.llm.retry import Retry
from peerloom.services.secret import Secret
from peerloom.task import Usage

KEY = "sk-very-secret"
HELLO = ChatRequest(messages=[{"role": "user", "content": "hi"}])
OK = http(200, completion())


@asynccontextmanager
async def client(*script, waits: list[float] | None = None, **fields) -> AsyncIterator[tuple]:
    """A client and the server it calls; no wait between attempts takes any time."""

    async def sleep(seconds: float) -> None:
        if waits is not None:
            waits.append(seconds)

    async with raw_server(*script) as server:
        fields = {"retry": Retry(attempts=3), "api_key": KEY, "timeout": 5.0, **fields}
        llm = client_of(pickle.loads(pickle.dumps(fleet(server.url, **fields))), sleep)
        try:
            yield llm, server
        finally:
            await llm.close()


async def test_a_request_and_its_reply() -> None:
    request = ChatRequest(
        messages=HELLO.messages, max_tokens=9, temperature=0.5, top_p=0.9, stop=("\n",), seed=4, session="s/1"
    )
    async with client(OK, extra_body={"top_k": 40}) as (llm, server):
        reply = await llm.chat(request)
    assert server.bodies == [
        {
            "model": "m",
            "messages": HELLO.messages,
            "max_tokens": 9,
            "temperature": 0.5,
            "top_p": 0.9,
            "stop": ["\n"],
            "seed": 4,
            "top_k": 40,
        }
    ]
    assert server.heads[0].startswith("POST /v1/chat/completions HTTP/1.1\r\n")
    assert f"Authorization: Bearer {KEY}\r\n" in server.heads[0]
    assert "X-Session-ID: s/1\r\n" in server.heads[0]
    assert (reply.text, reply.finish_reason, reply.model) == ("hello", "stop", "m")
    assert reply.usage == Usage(prompt=7, completion=3, cached=4, calls=1)
    assert reply.message == {"role": "assistant", "content": "hello"}
    assert 0 < reply.seconds < 5


async def test_connections_are_kept_and_shared() -> None:
    async with client(OK) as (llm, server):
        for _ in range(3):
            await asyncio.gather(*(llm.chat(HELLO) for _ in range(8)))
    assert len(server.heads) == 24
    assert server.connections <= 8


async def test_a_prompt_of_megabytes_is_sent() -> None:
    async with client(OK) as (llm, server):
        await llm.chat(ChatRequest(messages=[{"role": "user", "content": "word " * 1_000_000}]))
    assert len(server.bodies[0]["messages"][0]["content"]) == 5_000_000


@pytest.mark.parametrize("structured", ["auto", "json_schema"])
async def test_choices_are_asked_as_a_schema_and_unwrapped(structured) -> None:
    request = ChatRequest(messages=HELLO.messages, choices=("A", "B"), max_tokens=2)
    async with client(http(200, completion('{"answer": "B"}')), structured=structured) as (llm, server):
        reply = await llm.chat(request)
    assert reply.text == reply.message["content"] == "B"
    asked = server.bodies[0]["response_format"]["json_schema"]
    assert asked["strict"] is True
    assert asked["schema"]["properties"]["answer"]["enum"] == ["A", "B"]
    assert server.bodies[0]["max_tokens"] > 8, "the braces must fit too"


@pytest.mark.parametrize("text", ["B", "I would say B.", '{"answer": "C"}', '["answer"]', '{"answer": "'])
async def test_a_reply_that_is_no_wrapped_choice_is_left_to_the_agent(text) -> None:
    async with client(http(200, completion(text))) as (llm, _):
        assert (await llm.chat(ChatRequest(messages=HELLO.messages, choices=("A", "B")))).text == text


async def test_choices_by_a_field_of_their_own_or_not_at_all() -> None:
    request = ChatRequest(messages=HELLO.messages, choices=("A", "B"))
    async with client(http(200, completion("B")), structured="choice") as (llm, server):
        assert (await llm.chat(request)).text == "B"
    assert server.bodies[0]["structured_outputs"] == {"choice": ["A", "B"]}
    async with client(OK, structured="none") as (llm, server):
        await llm.chat(request)
        await llm.chat(ChatRequest(messages=HELLO.messages, schema={"type": "object"}))
    assert all(set(body) == {"model", "messages"} for body in server.bodies)


async def test_a_schema_is_passed_on() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    async with client(http(200, completion('{"n": 1}')), structured="choice") as (llm, server):
        assert (await llm.chat(ChatRequest(messages=HELLO.messages, schema=schema))).text == '{"n": 1}'
    assert server.bodies[0]["response_format"]["json_schema"]["schema"] == schema


def with_grammar(body, request):
    """A shape."""
    return {**body, "grammar": " | ".join(request.choices), "cache_prompt": True}


async def test_a_shape_has_the_last_word() -> None:
    request = ChatRequest(messages=HELLO.messages, choices=("A", "B"))
    async with client(OK, structured="none", shape=with_grammar) as (llm, server):
        await llm.chat(request)
    assert server.bodies[0]["grammar"] == "A | B"


@pytest.mark.parametrize(
    "passing",
    [
        reset,
        half,
        error(500, "oops"),
        error(503, "busy"),
        error(429, "slow down"),
        error(408, "late"),
        error(409, "conflict"),
        http(200, b"<html>welcome</html>", kind="text/html"),
        http(200, b'{"choices": [{"mess'),
        http(200, {"choices": []}),
        http(200, {"choices": [{"message": {"content": 7}}]}),
        http(200, [1, 2]),
        http(200, {"error": {"code": 502, "message": "upstream died"}}),
        b"SPDY/9 nonsense\r\n\r\n",
    ],
)
async def test_what_may_pass_is_tried_again(passing) -> None:
    async with client(passing, passing, OK) as (llm, server):
        assert (await llm.chat(HELLO)).text == "hello"
        assert len(server.heads) == 3


@pytest.mark.parametrize("stuck", [hang, slow])
async def test_a_call_that_hangs_times_out(stuck) -> None:
    async with client(stuck, OK, timeout=0.05) as (llm, _):
        assert (await llm.chat(HELLO)).text == "hello"
    async with client(stuck, timeout=0.02) as (llm, _):
        with pytest.raises(LLMUnavailable, match=r"in 3 attempts.*timeout"):
            await llm.chat(HELLO)


async def test_retry_after_is_honoured() -> None:
    waits: list[float] = []
    limited = error(429, "slow down", "Retry-After: 40\r\n")
    retry = Retry(base=0, retry_after_cap=60)
    async with client(limited, OK, waits=waits, retry=retry) as (llm, _):
        await llm.chat(HELLO)
    assert waits == [40]


async def test_giving_up_says_what_was_called_and_what_it_said_last() -> None:
    async with client(error(502, "one"), error(500, f"two, with {KEY}")) as (llm, server):
        with pytest.raises(LLMUnavailable) as caught:
            await llm.chat(HELLO)
    text = str(caught.value)
    assert text.startswith(f"m at {server.url} did not answer in 3 attempts")
    assert text.endswith("last: HTTP 500: two, with ***")


async def test_a_page_instead_of_a_reply_is_quoted() -> None:
    page = http(200, b"<html>welcome</html>", kind="text/html")
    async with client(page, retry=Retry(attempts=1)) as (llm, _):
        with pytest.raises(LLMUnavailable, match=r"invalid body .text/html.*<html>welcome"):
            await llm.chat(HELLO)


async def test_an_unreachable_server() -> None:
    url = closed_port()
    for retry, words in (
        (Retry(), f"m at {url} is away: "),
        (Retry(attempts=1), "in 1 attempt"),
    ):
        llm = client_of(fleet(url, retry=retry, patient=False))
        with pytest.raises(LLMUnavailable, match=rf"(?i){words}.*cannot connect"):
            await llm.chat(HELLO)
        await llm.close()


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (error(400, "bad \n temperature"), LLMRejected, "HTTP 400: bad temperature"),
        (error(401, f"Incorrect key {KEY}"), LLMDenied, r"HTTP 401: Incorrect key \*\*\*"),
        (error(404, "no such model"), LLMDenied, "no such model"),
        (error(400, "x" * 5000), LLMRejected, r"^HTTP 400: x{300}\.\.\.$"),
        (http(422, {"detail": "not nice"}), LLMRejected, "not nice"),
        (error(501, "no embeddings here"), LLMRejected, "no embeddings here"),
        (http(400, {"error": "bare words"}), LLMRejected, "bare words"),
        (http(418, b"\xff teapot", kind="text/plain"), LLMRejected, "teapot"),
        (http(403, b""), LLMDenied, "HTTP 403: no message"),
        (error(400, "response_format is unavailable"), LLMRejected, "set llm.structured=none"),
        (http(308, b"", "Location: https://new/v1\r\n"), LLMRejected, "redirects to https://new/v1"),
        (error(400, "too long", code="context_length_exceeded"), ContextExceeded, "too long"),
        (error(400, "too long", type="exceed_context_size_error"), ContextExceeded, "too long"),
        (error(500, "too long", type="exceed_context_size_error"), ContextExceeded, "too long"),
        (error(400, "This model's maximum context length is 9"), ContextExceeded, "is 9"),
        (error(400, "no", code="content_filter"), ContentFiltered, "no"),
        (http(200, completion("", finish_reason="content_filter")), ContentFiltered, "withheld"),
        (http(200, {"error": {"code": 400, "message": "bad"}}), LLMRejected, "bad"),
    ],
)
async def test_what_cannot_be_helped_ends_the_task_at_once(answer, kind, words) -> None:
    async with client(answer, patient=False) as (llm, server):
        with pytest.raises(kind, match=words) as caught:
            await llm.chat(HELLO)
        assert type(caught.value) is kind
        assert len(server.heads) == 1
        assert KEY not in str(caught.value)


async def test_a_cut_reply_and_a_reply_of_tool_calls_are_replies() -> None:
    calls = {"choices": [{"message": {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}}]}
    cut = http(200, completion("hel", finish_reason="length"))
    async with client(cut, http(200, calls)) as (llm, _):
        assert (await llm.chat(HELLO)).finish_reason == "length"
        reply = await llm.chat(HELLO)
    assert (reply.text, reply.usage) == ("", Usage(calls=1))
    assert reply.message["tool_calls"] == [{"id": "1"}]


async def test_a_cancelled_call_lets_go_of_its_connection() -> None:
    async with client(hang, OK) as (llm, server):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await llm.chat(HELLO)
        assert (await llm.chat(HELLO)).text == "hello"
        assert server.connections == 2


def closed_port() -> str:
    """A URL nobody listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


async def start(service: OpenAIService) -> tuple[ReplicatedClientSpec, list[str]]:
    said: list[str] = []
    return await service.start("llm", None, said.append, Path()), said  # type: ignore[arg-type]  # starts nothing


def models(*names: str) -> bytes:
    return http(200, {"object": "list", "data": [{"id": name} for name in names]})


async def test_the_service_takes_the_model_it_is_told_or_the_first() -> None:
    async with raw_server(models("big", "small"), models("big", "small"), models("llama3:latest")) as server:
        spec, said = await start(OpenAIService(base_url=server.url, api_key=KEY))
        assert spec.model == "big"
        assert said == [f"model big at {server.url}"]
        assert (await start(OpenAIService(base_url=f"{server.url}/", model="small")))[0].model == "small"
        assert (await start(OpenAIService(base_url=server.url, model="llama3")))[0].model == "llama3"
    assert server.heads[0].startswith("GET /v1/models HTTP")
    assert KEY in server.heads[0]


@pytest.mark.parametrize(
    ("answer", "model", "words"),
    [
        (error(401, "no"), None, "requires an API key and none is set .HTTP 401.: set OPENAI_API_KEY"),
        (error(404, "no"), None, r"/v1/models is not found \(HTTP 404\)$"),
        (error(500, "it burns"), None, "answered HTTP 500: it burns"),
        (http(200, b"<html>"), None, "with no list of models: '<html>'"),
        (models(), None, "lists no model"),
        (models("qwen-72b", "other"), "qwen-7b", "has no model 'qwen-7b'. Did you mean 'qwen-72b'"),
        (models("a", "b"), "zzz", "There are: a, b. Set llm.model"),
    ],
)
async def test_the_service_says_what_is_wrong_with_a_server(answer, model, words) -> None:
    async with raw_server(answer) as server:
        with pytest.raises(ServiceError, match=words):
            await start(OpenAIService(base_url=server.url, model=model))


async def test_a_refused_key_and_a_forgotten_v1() -> None:
    async with raw_server(error(401, "no"), error(404, "no")) as server:
        with pytest.raises(ServiceError, match="the API key was refused") as caught:
            await start(OpenAIService(base_url=server.url, api_key=KEY))
        assert KEY not in str(caught.value)
        with pytest.raises(ServiceError, match="lack its /v1"):
            await start(OpenAIService(base_url=server.url.removesuffix("/v1")))


async def test_a_server_that_lists_no_models_but_takes_chats() -> None:
    async with raw_server(error(404, "no"), error(400, "messages missing")) as server:
        spec, _ = await start(OpenAIService(base_url=server.url, model="mine"))
        assert spec.model == "mine"
        assert server.bodies[-1] == {}


async def test_a_server_that_is_not_there_or_silent() -> None:
    with pytest.raises(ServiceError, match=r"no LLM server answers at .*start it, or set llm.base_url"):
        await start(OpenAIService(base_url=closed_port()))
    async with raw_server(hang) as server:
        with pytest.raises(ServiceError, match=r"does not answer in 0.02 s"):
            await start(OpenAIService(base_url=server.url, calls=CallPolicy(timeout=0.02)))


async def test_address_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_server(models("m")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        spec, _ = await start(OpenAIService())
    assert spec.replicas == (server.url,)
    assert spec.backend_factory.endpoint.api_key == Secret(KEY)
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert "https://api.openai.com/v1" in str(vars(OpenAIService()))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("127.0.0.1:8000/v1", "must begin with http"),
        ("localhost:8000", "must begin with http"),
        ("ftp://x/v1", "must begin with http"),
        ("http://x/v1/chat/completions/", "leave out /chat/completions"),
        ("http://me:pass@x/v1", "contains a user or password"),
    ],
)
def test_impossible_addresses_are_refused(url, words) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        OpenAIService(base_url=url)
    assert "pass@" not in str(caught.value)


def test_other_impossible_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="it must be one of auto, json_schema, choice, none"):
        OpenAIService(base_url="http://x/v1", structured="xml")  # type: ignore[arg-type]  # the point


def test_openai_itself_is_told_the_token_limit_in_its_own_field() -> None:
    for url, name in (
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://x.openai.azure.com/v1", "max_completion_tokens"),
        ("https://openai.example.com/v1", "max_tokens"),
    ):
        assert OpenAIDialect().for_server(url).limit_field == name


async def test_the_query_of_the_address_is_kept_and_not_shown() -> None:
    async with raw_server(OK) as server:
        url = f"{server.url}?api-version=2"
        llm = client_of(fleet(url))
        await llm.chat(HELLO)
        await llm.close()
    assert server.heads[0].startswith("POST /v1/chat/completions?api-version=2 HTTP")
    assert Endpoint(base_url=url).shown() == server.url


async def test_a_proxy_is_used_but_not_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_server(OK) as proxy, raw_server(OK) as server:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        monkeypatch.setenv("no_proxy", "")
        for url in ("http://model.example/v1", server.url):
            llm = client_of(fleet(url))
            assert (await llm.chat(HELLO)).text == "hello"
            await llm.close()
    assert [head.split("\r\n")[0] for head in proxy.heads] == [
        "POST http://model.example/v1/chat/completions HTTP/1.1"
    ]
    assert len(server.heads) == 1
