"""The checks when a run starts ask for no more than the run needs, and say what is wrong."""

import asyncio
from pathlib import Path

import pytest
from fleets import Context, fleet, question
from fleets import client as client_of
from raw_server import completion, error, http, raw_server

from peerloom.errors import LLMDenied, LLMRejected, ServiceError
from peerloom.services.llm.client.client import ReplicatedClient
from peerloom.services.llm.client.context import Health
from peerloom.services.llm.client.routing import Routing
from peerloom.services.llm.hosted import preflight
from peerloom.services.llm.hosted.backend import HttpBackend
from peerloom.services.llm.hosted.providers import OpenAIService
from peerloom.services.llm.http.endpoint import Endpoint
from peerloom.services.llm.providers.openai import OpenAIDialect

LIST = http(200, {"object": "list", "data": [{"id": "m"}]})
OTHERS = http(200, {"object": "list", "data": [{"id": "other"}]})
HTML = http(200, b"<html>hello</html>", kind="text/html")
NOT_FOUND = error(404, "no stub matches this request")
QUICK = Routing(eject_seconds=0.01, eject_cap=0.02)


async def start(*script: bytes, model: str | None = "m", **fields) -> tuple[str, list[str]]:
    """Start the service at a server; the model that it chose, and what it said."""
    said: list[str] = []
    async with raw_server(*script) as server:
        service = OpenAIService(base_url=server.url + fields.pop("tail", ""), model=model, **fields)
        spec = await service.start("llm", None, said.append, Path())  # type: ignore[arg-type]  # starts nothing
    return spec.model, said


@pytest.mark.parametrize(
    "script",
    [
        (LIST,),
        (error(404, "no"), error(400, "messages missing")),
        (error(405, "no"), error(422, "messages missing")),
        (http(501, b"no"), error(400, "messages missing")),
        (HTML, error(400, "messages missing")),
        (http(200, {"models": []}), error(400, "messages missing")),
        (error(403, "missing scope api.model.read"), error(400, "messages missing")),
        (NOT_FOUND,),
        (NOT_FOUND, http(200, completion())),
        (NOT_FOUND, error(500, "no messages")),
        (http(200, {"data": []}),),
        (error(500, "no such directory"), error(422, "messages missing")),
        (error(502, "bad gateway"), http(200, completion())),
    ],
)
async def test_a_server_need_not_list_the_model_that_is_set(script) -> None:
    assert (await start(*script))[0] == "m"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ((HTML,), "with no list of models: '<html>hello</html>'"),
        ((http(404, b"<html>", kind="text/html"),), r"/models is not found \(HTTP 404\)"),
        ((error(404, "no"), error(401, "no")), "it requires an API key and none is set"),
        ((error(403, "no"),), r"it requires an API key and none is set \(HTTP 403\)"),
        ((error(500, "no"), error(500, "no")), "answered HTTP 500: no"),
        ((OTHERS,), "has no model 'm'. There are: other"),
        (
            (error(404, "no"), http(307, b"", "Location: /v2/chat\r\n")),
            "redirects to http://127.*/v2/chat",
        ),
    ],
)
async def test_a_server_that_cannot_answer_is_refused(script, words) -> None:
    with pytest.raises(ServiceError, match=words):
        await start(*script)


async def test_a_server_whose_list_fails_is_well_if_it_takes_chats() -> None:
    fails = error(500, "no such directory")
    async with raw_server(fails, error(422, "empty"), fails, fails, error(503, "busy")) as server:
        backend = HttpBackend(Endpoint(base_url=server.url), OpenAIDialect(), "m")
        well = [await backend.healthy() for _ in range(3)]
        await backend.close()
    assert well == [True, False, False]


async def test_an_address_without_its_tail_is_told_from_a_server_without_a_list() -> None:
    async with raw_server(error(404, "Not Found")) as server:
        service = OpenAIService(base_url=server.url.removesuffix("/v1"), model="m")
        with pytest.raises(ServiceError, match="lack its /v1"):
            await service.start("llm", None, print, Path())  # type: ignore[arg-type]  # starts nothing


@pytest.mark.parametrize(
    ("location", "words"),
    [
        (
            "https://me:pw@new.example/v1/models?sig=abc#x",
            "redirects to https://new.example/v1/models .HTTP 308",
        ),
        ("/v2/models", r"redirects to http://127.0.0.1:\d+/v2/models \(HTTP 308\)"),
        ("http://[", r"redirects to 'http://\[' \(HTTP 308\)"),
        ("", r"redirects \(HTTP 308\)"),
    ],
)
async def test_the_target_of_a_redirect_is_named(location, words) -> None:
    line = f"Location: {location}\r\n" if location else ""
    with pytest.raises(ServiceError, match=words) as caught:
        await start(http(308, b"", line))
    assert "pw" not in str(caught.value) and "abc" not in str(caught.value)


@pytest.mark.parametrize("status", [429, 503, 529])
async def test_a_busy_server_is_waited_for(status: int) -> None:
    busy = error(status, "slow down", "retry-after-ms: 1\r\n")
    model, said = await start(busy, busy, LIST)
    assert model == "m"
    assert len(said) == 2 and f"busy (HTTP {status}: slow down): waiting for up to 120 s" in said[0]


@pytest.mark.parametrize(
    "answer",
    [
        error(429, "slow down", "Retry-After: 3600\r\n"),
        error(429, "no quota left", code="insufficient_quota"),
    ],
)
async def test_a_server_that_will_be_busy_for_long_is_not_waited_for(answer) -> None:
    with pytest.raises(ServiceError, match="answered HTTP 429: "):
        await start(answer)


async def test_the_wait_for_a_busy_server_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(preflight, "_BUSY_SECONDS", 0.05)
    with pytest.raises(ServiceError, match="answered HTTP 503: loading"):
        await start(error(503, "loading", "retry-after-ms: 5\r\n"))


def scripted(*, models: bytes = LIST, chat=None, empty: bytes = error(400, "empty")):
    """Answer by path and content: `chat(text)` answers chats."""

    async def act(writer: asyncio.StreamWriter) -> None:
        head, body = act.server.heads[-1], act.server.bodies[-1]  # type: ignore[attr-defined]  # set below
        if head.startswith("GET"):
            writer.write(models)
        elif not body:
            writer.write(empty)
        else:
            writer.write(chat(body["messages"][0]["content"]))

    return act


def only_asks_1(refusal: bytes):
    return lambda text: refusal if text == "student asks 1" else http(200, completion("yes"))


@pytest.mark.parametrize(
    ("models", "before", "refusal"),
    [
        (LIST, False, NOT_FOUND),
        (LIST, True, NOT_FOUND),
        (NOT_FOUND, True, NOT_FOUND),
        (LIST, True, http(404, b"<html>")),
        (LIST, True, error(403, "blocked by policy")),
        (NOT_FOUND, True, error(401, "blocked by policy")),
    ],
)
async def test_a_request_that_a_server_does_not_know_fails_alone(models, before, refusal) -> None:
    act = scripted(models=models, chat=only_asks_1(refusal))
    async with raw_server(act) as act.server:  # type: ignore[attr-defined]
        desk = Context()
        client = ReplicatedClient(fleet(act.server.url, routing=QUICK), desk)
        if before:
            assert (await client.chat(question(0))).text == "yes"
        with pytest.raises(LLMRejected, match="only this request is refused"):
            await client.chat(question(1))
        assert (await client.chat(question(2))).text == "yes"
        assert desk.health == Health(answered=True)
        await client.close()


@pytest.mark.parametrize(
    ("models", "empty", "refusal"),
    [
        (OTHERS, error(400, "empty"), error(404, "gone")),
        (NOT_FOUND, error(400, "empty"), error(404, "gone")),
        (LIST, error(400, "empty"), error(404, "The model `m` does not exist", code="model_not_found")),
        (LIST, error(401, "revoked"), error(401, "revoked")),
        (LIST, error(400, "empty"), error(403, "not allowed")),
        (LIST, error(400, "empty"), error(402, "empty account")),
    ],
)
async def test_a_server_that_has_never_answered_refuses_the_run(models, empty, refusal) -> None:
    act = scripted(models=models, chat=lambda _: refusal, empty=empty)
    async with raw_server(act) as act.server:  # type: ignore[attr-defined]
        client = client_of(fleet(act.server.url, patient=False))
        with pytest.raises(LLMDenied):
            await client.chat(question(1))
        await client.close()


async def test_a_key_that_is_revoked_after_an_answer_refuses_the_run() -> None:
    revoked = error(403, "revoked")
    act = scripted(chat=only_asks_1(revoked), empty=revoked)
    async with raw_server(act) as act.server:  # type: ignore[attr-defined]
        client = client_of(fleet(act.server.url, patient=False))
        await client.chat(question(0))
        with pytest.raises(LLMDenied, match="revoked"):
            await client.chat(question(1))
        await client.close()
