"""Every provider means the same: recorded shapes of each, through the real client, come out alike.

A new provider is a file of shapes and a row of PROVIDERS.
"""

import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from stand_in import StandIn, recorded, stand_in

import peerloom
from peerloom.errors import ContentFiltered, ContextExceeded, LLMDenied, LLMRejected, ServiceError
from peerloom.services.llm.base import LLM, ChatRequest, EmbedRequest
from peerloom.services.llm.client.client import ReplicatedClient, ReplicatedClientSpec
from peerloom.services.llm.client.context import ClientContext
from peerloom.services.llm.hosted.backend import HttpDial
from peerloom.services.llm.hosted.providers import (
    AnthropicService,
    AzureService,
    GeminiService,
    OpenAIService,
)
from peerloom.services.llm.hosted.service import HttpService
from peerloom.services.llm.http.endpoint import Endpoint
from peerloom.services.llm.providers.anthropic import AnthropicDialect
from peerloom.services.llm.providers.azure import AzureDialect
from peerloom.services.llm.providers.dialect import Dialect
from peerloom.services.llm.providers.gemini import GeminiDialect
from peerloom.services.llm.providers.openai import OpenAIDialect
from peerloom.services.secret import Secret
from peerloom.task import Usage

KEY = "sk-very-secret"
PROVIDERS: dict[str, tuple[Dialect, str, str]] = {
    "openai": (OpenAIDialect(), "/chat/completions", f"authorization: Bearer {KEY}"),
    "azure": (
        AzureDialect(),
        "/openai/deployments/m/chat/completions?api-version=2024-10-21",
        f"api-key: {KEY}",
    ),
    "anthropic": (AnthropicDialect(), "/v1/messages", f"x-api-key: {KEY}"),
    "gemini": (GeminiDialect(), "/v1beta/models/m:generateContent", f"x-goog-api-key: {KEY}"),
}
every = pytest.mark.parametrize("provider", PROVIDERS)
HELLO = [{"role": "user", "content": "Does ice float?"}]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@asynccontextmanager
async def client(
    provider: str, *cases: str, dialect: Dialect | None = None, waits: list[float] | None = None
) -> AsyncIterator[tuple[LLM, StandIn]]:
    """A client of a stand-in that answers with these cases; waits between tries take no time."""

    async def sleep(seconds: float) -> None:
        if waits is not None:
            waits.append(seconds)

    shapes = recorded(provider)
    async with stand_in(*(shapes[case] for case in cases)) as server:
        endpoint = Endpoint(base_url=server.url, api_key=Secret(KEY), timeout=5.0)
        dial = HttpDial(endpoint, dialect or PROVIDERS[provider][0], "m")
        spec = ReplicatedClientSpec(model="m", replicas=(server.url,), backend_factory=dial, patient=False)
        llm = ReplicatedClient(pickle.loads(pickle.dumps(spec)), ClientContext(), sleep=sleep)
        try:
            yield llm, server
        finally:
            await llm.close()


@every
async def test_a_text_and_what_it_used(provider: str) -> None:
    _, path, header = PROVIDERS[provider]
    async with client(provider, "text") as (llm, server):
        reply = await llm.chat(ChatRequest(messages=HELLO, max_tokens=9, temperature=0.5, seed=4))
    assert (reply.text, reply.finish_reason, reply.model) == ("Ice floats.", "stop", "m-2026")
    assert reply.usage == Usage(prompt=20, completion=5, cached=12, calls=1)
    assert reply.message["role"] == "assistant"
    assert reply.message["content"] == "Ice floats."
    assert (reply.reasoning, reply.tool_calls, reply.logprobs) == ("", [], [])
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", path)
    name, _, value = header.partition(": ")
    assert asked.headers[name] == value


@every
async def test_a_cut_reply_is_a_reply(provider: str) -> None:
    async with client(provider, "truncated") as (llm, _):
        reply = await llm.chat(ChatRequest(messages=HELLO))
    assert (reply.text, reply.finish_reason) == ("Ice flo", "length")


@every
@pytest.mark.parametrize("case", ["filtered", "prompt_filtered"])
async def test_what_was_withheld_is_filtered(provider: str, case: str) -> None:
    async with client(provider, case) as (llm, server):
        with pytest.raises(ContentFiltered):
            await llm.chat(ChatRequest(messages=HELLO))
    assert len(server.asked) == 1


@pytest.mark.parametrize("provider", ["openai", "azure"])
async def test_a_refusal_is_filtered_with_its_words(provider: str) -> None:
    async with client(provider, "refused") as (llm, _):
        with pytest.raises(ContentFiltered, match="I can't help"):
            await llm.chat(ChatRequest(messages=HELLO))


@every
async def test_a_tool_call_comes_in_openais_form_and_goes_back(provider: str) -> None:
    async with client(provider, "tool_call", "text") as (llm, server):
        reply = await llm.chat(ChatRequest(messages=HELLO, tools=(WEATHER,), tool_choice="required"))
        (call,) = reply.tool_calls
        result = {"role": "tool", "tool_call_id": call["id"], "content": "rain"}
        await llm.chat(ChatRequest(messages=[*HELLO, reply.message, result], tools=(WEATHER,)))
    assert reply.finish_reason == "tool_calls"
    assert (call["type"], call["function"]["name"]) == ("function", "weather")
    assert orjson.loads(call["function"]["arguments"]) == {"city": "Oslo"}
    assert reply.message["tool_calls"] == reply.tool_calls
    assert b"The weather of a city." in orjson.dumps(server.asked[0].body)
    back = orjson.dumps(server.asked[1].body)
    assert b"rain" in back
    assert b"Oslo" in back


@every
async def test_a_schema_and_choices_are_asked_of_the_provider(provider: str) -> None:
    async with client(provider, "schema", "choice", "choice") as (llm, server):
        reply = await llm.chat(ChatRequest(messages=HELLO, schema=SCHEMA))
        chosen = await llm.chat(ChatRequest(messages=HELLO, choices=("A", "B")))
    assert orjson.loads(reply.text) == {"n": 4}
    assert (chosen.text, chosen.finish_reason, chosen.tool_calls) == ("B", "stop", [])
    assert chosen.message["content"] == "B"
    assert b'"integer"' in orjson.dumps(server.asked[0].body)
    assert b'["A","B"]' in orjson.dumps(server.asked[1].body)


@every
async def test_thoughts_are_kept_apart(provider: str) -> None:
    async with client(provider, "reasoning") as (llm, _):
        reply = await llm.chat(ChatRequest(messages=HELLO))
    assert (reply.reasoning, reply.text) == ("Density.", "Ice floats.")
    assert "Density" not in str(reply.message)


@pytest.mark.parametrize("provider", ["openai", "azure", "gemini"])
async def test_log_probabilities_come_in_openais_form(provider: str) -> None:
    async with client(provider, "logprobs") as (llm, _):
        reply = await llm.chat(ChatRequest(messages=HELLO, top_logprobs=2))
    (record,) = reply.logprobs
    assert (record["token"], record["logprob"]) == ("Ice", -0.25)
    assert [other["token"] for other in record["top_logprobs"]] == ["Ice", "It"]
    assert reply.token_ids == ([11] if provider == "gemini" else [])


@every
@pytest.mark.parametrize(
    ("case", "kind"),
    [
        ("unauthorized", LLMDenied),
        ("no_model", LLMDenied),
        ("quota", LLMDenied),
        ("too_long", ContextExceeded),
    ],
)
async def test_what_will_not_do_is_told_apart(provider: str, case: str, kind: type[Exception]) -> None:
    async with client(provider, case) as (llm, server):
        with pytest.raises(kind) as caught:
            await llm.chat(ChatRequest(messages=HELLO))
    assert type(caught.value) is kind
    assert len(server.asked) == 1


@every
async def test_a_limit_is_waited_out_as_long_as_it_says(provider: str) -> None:
    waits: list[float] = []
    async with client(provider, "limited", "text", waits=waits) as (llm, _):
        assert (await llm.chat(ChatRequest(messages=HELLO))).text == "Ice floats."
    assert len(waits) == 1
    assert waits[0] >= 7


@every
@pytest.mark.parametrize("case", ["overloaded", "malformed"])
async def test_what_may_pass_is_tried_again(provider: str, case: str) -> None:
    async with client(provider, case, "text") as (llm, server):
        assert (await llm.chat(ChatRequest(messages=HELLO))).text == "Ice floats."
    assert len(server.asked) == 2


@pytest.mark.parametrize("provider", ["openai", "azure", "gemini"])
async def test_vectors_come_in_the_order_of_their_texts(provider: str) -> None:
    async with client(provider, "embedded") as (llm, server):
        reply = await llm.embed(EmbedRequest(texts=("a", "b"), dimensions=2))
    assert reply.vectors == [[1.0, 0.0], [0.0, 1.0]]
    assert b"2" in orjson.dumps(server.asked[0].body)


async def test_a_provider_without_vectors_says_so() -> None:
    async with client("anthropic", "text") as (llm, server):
        with pytest.raises(LLMRejected, match="no embeddings"):
            await llm.embed(EmbedRequest(texts=("a",)))
        with pytest.raises(LLMRejected, match="no log-probabilities"):
            await llm.chat(ChatRequest(messages=HELLO, top_logprobs=2))
    assert server.asked == []


@every
async def test_a_server_is_well_if_it_lists_its_models(provider: str) -> None:
    shapes = recorded(provider)
    async with stand_in(shapes["models"], shapes["overloaded"]) as server:
        endpoint = Endpoint(base_url=server.url, api_key=Secret(KEY))
        backend = HttpDial(endpoint, PROVIDERS[provider][0], "m")(server.url)
        well = [await backend.healthy(), await backend.healthy()]
        await backend.close()
    assert well == [True, False]


async def started(provider: str, server: StandIn, model: str | None) -> ReplicatedClientSpec:
    service = HttpService(PROVIDERS[provider][0], base_url=server.url, model=model, api_key=KEY)
    return await service.start("llm", None, lambda line: None, Path())  # type: ignore[arg-type]  # starts nothing


FOUND = {
    "openai": ["models"],
    "azure": ["models", "prompt_filtered"],
    "anthropic": ["model"],
    "gemini": ["model"],
}
ABSENT = {
    "openai": ["models"],
    "azure": ["models", "no_model"],
    "anthropic": ["no_model", "models"],
    "gemini": ["no_model", "models"],
}


@every
async def test_the_model_is_looked_for_before_the_run(provider: str) -> None:
    shapes = recorded(provider)
    async with stand_in(*(shapes[case] for case in FOUND[provider])) as server:
        spec = await started(provider, server, "m")
    assert (spec.model, spec.replicas) == ("m", (server.url,))
    async with stand_in(*(shapes[case] for case in ABSENT[provider])) as server:
        with pytest.raises(ServiceError, match=r"has no model 'm-larg'.*Set llm.model"):
            await started(provider, server, "m-larg")


@every
async def test_a_refused_key_names_its_variable(provider: str) -> None:
    async with stand_in(recorded(provider)["models_denied"]) as server:
        with pytest.raises(ServiceError, match="the API key was refused") as caught:
            await started(provider, server, "m")
    assert str(caught.value).endswith(PROVIDERS[provider][0].provider.key_env)


async def test_the_first_model_listed_or_the_one_that_must_be_named() -> None:
    for provider in ("openai", "anthropic", "gemini"):
        async with stand_in(recorded(provider)["models"]) as server:
            assert (await started(provider, server, None)).model == "m"
    async with stand_in(recorded("azure")["models"]) as server:
        with pytest.raises(ServiceError, match=r"set llm\.model"):
            await started("azure", server, None)


SERVICES = {
    "openai": OpenAIService,
    "azure": AzureService,
    "anthropic": AnthropicService,
    "gemini": GeminiService,
}


@every
async def test_a_run_with_each_service(provider: str, tmp_path: Path) -> None:
    shapes = recorded(provider)
    agents = {"me": peerloom.LLMAgent("How many?", schema=SCHEMA)}
    async with stand_in(*(shapes[case] for case in (*FOUND[provider], "schema"))) as server:
        result = await peerloom.arun(
            workflow=peerloom.Sequence("me"),
            agents=agents,
            source=[{}],
            llm=SERVICES[provider](base_url=server.url, model="m", api_key=KEY),
            engine="local",
            run_dir=tmp_path / "run",
        )
    (row,) = result
    assert row["turns"][0]["value"] == {"n": 4}
    assert row["usage"] == {"prompt": 20, "completion": 5, "cached": 12, "calls": 1}
    written = b"".join(file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file())
    assert KEY.encode() not in written
