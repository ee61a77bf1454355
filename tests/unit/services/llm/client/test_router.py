"""Several services in one run, through the door: who answers whom, and who steps in."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from raw_server import completion, error, http, raw_server

import peerloom
from peerloom.errors import ConfigError, ContextExceeded, LLMDenied, LLMUnavailable
from peerloom.services.llm.base import ChatRequest, EmbedRequest
from peerloom.services.llm.client.router import ServiceOptions, ServiceRouter, ServiceRouterClient
from peerloom.services.llm.client.routing import Routing
from peerloom.services.llm.hosted.providers import OpenAIService
from peerloom.services.llm.hosted.service import CallPolicy
from peerloom.services.llm.retry import Retry
from peerloom.services.llm.scripted import ScriptedService
from peerloom.task import Usage

MODELS = http(200, {"data": [{"id": "m"}]})


def ask(role: str = "") -> ChatRequest:
    return ChatRequest(messages=[{"role": "user", "content": "hi"}], role=role)


async def started(lineup: ServiceRouter) -> ServiceRouterClient:
    spec = await lineup.start("llm", None, print, Path())  # type: ignore[arg-type]  # starts nothing
    client = spec.connect()
    assert isinstance(client, ServiceRouterClient)
    return client


async def answered(services: dict, **options) -> str:
    client = await started(ServiceRouter(services, **options))
    try:
        return (await client.chat(ask())).text
    finally:
        await client.close()


def test_a_role_has_a_model_of_its_own(tmp_path: Path) -> None:
    lineup = ServiceRouter(
        {"small": ScriptedService(lambda _: "by small"), "big": ScriptedService(lambda _: "by big")},
        roles={"judge": "big"},
    )
    ran = peerloom.run(
        workflow=peerloom.Sequence("writer", "judge"),
        agents={"writer": peerloom.LLMAgent("Write."), "judge": peerloom.LLMAgent("Judge.")},
        source=[{}],
        llm=lineup,
        run_dir=tmp_path,
        engine="local",
    )
    (row,) = ran.rows()
    assert row["conversations"] == {
        "writer": [{"role": "user", "content": "Write."}, {"role": "assistant", "content": "by small"}],
        "judge": [{"role": "user", "content": "Judge."}, {"role": "assistant", "content": "by big"}],
    }
    assert row["messages"] == row["conversations"]["writer"]


@pytest.mark.parametrize("failure", [LLMUnavailable("away"), LLMDenied("no key")])
async def test_another_service_steps_in(failure: Exception) -> None:
    services = {"first": ScriptedService(lambda _: failure), "second": ScriptedService(lambda _: "here")}
    assert await answered(services, options={"first": ServiceOptions(fallback="second")}) == "here"


async def test_the_last_in_line_says_what_is_wrong() -> None:
    services = {name: ScriptedService(lambda _, name=name: LLMUnavailable(name)) for name in "abc"}
    options = {"a": ServiceOptions(fallback="b"), "b": ServiceOptions(fallback="c")}
    with pytest.raises(LLMUnavailable, match=r"^c$"):
        await answered(services, options=options)


async def test_what_is_wrong_with_a_request_is_no_reason_to_ask_another() -> None:
    services = {"a": ScriptedService(lambda _: ContextExceeded("long")), "b": ScriptedService(lambda _: "b")}
    with pytest.raises(ContextExceeded):
        await answered(services, options={"a": ServiceOptions(fallback="b")})


async def test_a_service_that_was_away_is_asked_again_when_it_is_back() -> None:
    quick = Routing(eject_after=1, eject_seconds=0.05)
    async with raw_server(MODELS, error(500, "broken"), MODELS, http(200, completion("first"))) as server:
        client = await started(
            ServiceRouter(
                {
                    "first": OpenAIService(base_url=server.url, calls=CallPolicy(retry=Retry(base=0))),
                    "second": ScriptedService(lambda _: "second"),
                },
                options={"first": ServiceOptions(fallback="second", routing=quick)},
            )
        )
        texts = [(await client.chat(ask())).text]
        while "first" not in texts:
            texts.append((await client.chat(ask())).text)
            await asyncio.sleep(0.01)
        assert set(texts[:-1]) == {"second"}
        await client.close()


async def test_what_the_first_has_used_counts_in_the_reply_of_the_second() -> None:
    broken = completion("half")
    broken["choices"][0]["finish_reason"] = "error"
    broken["usage"] = {"prompt_tokens": 7, "completion_tokens": 3}
    async with raw_server(MODELS, http(200, broken)) as server:
        first = OpenAIService(base_url=server.url, calls=CallPolicy(retry=Retry(attempts=1)))
        client = await started(
            ServiceRouter(
                {"first": first, "second": ScriptedService(lambda _: "second")},
                options={"first": ServiceOptions(fallback="second")},
            )
        )
        reply = await client.chat(ask())
        await client.close()
    assert reply.text == "second"
    assert reply.usage == Usage(7, 3, 0, 2), "the scripted reply itself has no tokens"


@pytest.mark.parametrize(
    ("options", "routing"),
    [
        (ServiceOptions(), Routing(eject_cap=2)),
        (ServiceOptions(routing={"affinity": "none"}), Routing(affinity="none", eject_cap=2)),
        (ServiceOptions(routing={"eject_seconds": 5.0}), Routing(eject_seconds=5, eject_cap=5)),
        (ServiceOptions(routing=Routing(imbalance=2)), Routing(imbalance=2)),
    ],
)
def test_what_is_not_said_of_routing_is_as_the_service_has_it(
    options: ServiceOptions, routing: Routing
) -> None:
    own = ScriptedService([]).spec()
    assert options.applied(replace(own, routing=Routing(eject_cap=2)), "llm").routing == routing


def test_a_routing_that_cannot_be_is_refused_before_anything_starts() -> None:
    with pytest.raises(peerloom.ConfigError, match="eject_seconds is 9"):
        ServiceOptions(routing={"eject_seconds": 9, "eject_cap": 3})


async def test_embeddings_go_the_same_way() -> None:
    client = await started(ServiceRouter({"a": ScriptedService([]), "b": ScriptedService([])}))
    with pytest.raises(peerloom.LLMRejected):
        await client.embed(EmbedRequest(texts=("x",)))
    await client.close()


async def test_one_service_is_that_service() -> None:
    spec = await ServiceRouter({"llm": ScriptedService(["x"])}).start("llm", None, print, Path())  # type: ignore[arg-type]
    assert [fleet.service for fleet in spec.fleets] == ["llm"]
    assert not isinstance(spec.connect(), ServiceRouterClient)


def test_names_that_lead_nowhere_are_refused() -> None:
    one = {"a": ScriptedService([])}
    with pytest.raises(ConfigError, match=r"roles.judge.llm=b: there is no such service; there are: a"):
        ServiceRouter(one, roles={"judge": "b"})
    with pytest.raises(ConfigError, match="a -> a fall back on each other"):
        ServiceRouter(one, options={"a": ServiceOptions(fallback="a")})


def test_the_configuration_names_services(tmp_path: Path) -> None:
    ran = peerloom.run(
        "coral",
        llm="simulated",
        config={"llms.judge.kind": "simulated", "llms.judge.tokens": 5, "roles.teacher.llm": "judge"},
        limit=2,
        engine="local",
        run_dir=tmp_path,
    )
    agents = ran.summary["agents"]
    words = {name: each["completion"] / max(1, each["calls"]) for name, each in agents.items()}
    assert words["teacher"] < 30 < words["student"], agents
