from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from peerloom.services.llm.base import ChatRequest, EmbedRequest
from peerloom.services.llm.cache.keys import CacheKeys, UncacheableService
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.hosted.backend import HttpDial
from peerloom.services.llm.http.endpoint import Endpoint
from peerloom.services.llm.providers.openai import OpenAIDialect
from peerloom.services.llm.scripted import ScriptedService
from peerloom.services.llm.simulated.service import SimulatedService
from peerloom.services.secret import Secret

REQUEST = ChatRequest(
    messages=[{"role": "user", "content": "hi"}], max_tokens=5, temperature=0.7, seed=1, session="s", role="r"
)


def fleet(url: str = "http://a/v1", model: str = "m", key: str = "k", **dialect: Any) -> ReplicatedClientSpec:
    endpoint = Endpoint(base_url=url, api_key=Secret(key))
    return ReplicatedClientSpec(
        model=model, replicas=(url,), backend_factory=HttpDial(endpoint, OpenAIDialect(**dialect), model)
    )


def key_of(request: ChatRequest = REQUEST, *fleets: ReplicatedClientSpec, **more: Any) -> bytes | None:
    return CacheKeys(fleets or (fleet(),), more).chat(request)


def changed(**values: Any) -> ChatRequest:
    return msgspec.structs.replace(REQUEST, **values)


@pytest.mark.parametrize(
    "values",
    [
        {"seed": 2},
        {"messages": [{"role": "user", "content": "ho"}]},
        {"messages": [{"content": "hi", "role": "user"}]},
        {"max_tokens": None},
        {"temperature": 0.8},
        {"top_p": 0.5},
        {"stop": ("x",)},
        {"choices": ("a", "b")},
        {"schema": {"type": "object"}},
        {"tools": ({"type": "function"},)},
        {"tool_choice": "none"},
        {"top_logprobs": 2},
    ],
)
def test_whatever_may_change_the_reply_changes_the_key(values: dict[str, Any]) -> None:
    assert key_of(changed(**values)) not in (key_of(), None)


def test_who_asks_and_what_is_the_same_number_does_not() -> None:
    assert key_of(changed(session="other", role="other")) == key_of()
    assert key_of(changed(temperature=1)) == key_of(changed(temperature=1.0))


def test_every_field_of_a_request_counts_but_those() -> None:
    ignored = {"session", "role"}
    samples: dict[str, Any] = {"messages": [], "stop": ("s",), "choices": ("c",), "schema": {"a": 1}}
    samples |= {"tools": ({"t": 1},), "tool_choice": "x"}
    for name in {field.name for field in msgspec.structs.fields(ChatRequest)} - ignored:
        value = samples.get(name, 9)
        assert key_of(changed(**{name: value})) != key_of(), name


def test_a_sample_without_a_seed_is_not_kept() -> None:
    assert key_of(changed(seed=None)) is None
    assert key_of(changed(seed=None, temperature=None)) is None
    assert key_of(changed(seed=None, temperature=0)) is not None
    assert key_of(changed(seed=0)) is not None


def test_what_cannot_be_encoded_is_not_kept() -> None:
    assert key_of(changed(messages=[{"role": "user", "content": object()}])) is None


def test_the_model_counts_and_its_address_does_not() -> None:
    assert key_of(REQUEST, fleet("http://b/v1", key="other")) == key_of()
    assert key_of(REQUEST, fleet(model="n")) != key_of()
    assert key_of(REQUEST, fleet(extra_body={"top_k": 1})) != key_of()
    assert key_of(REQUEST, fleet(structured="none")) != key_of()
    assert key_of(REQUEST, **{"llm.model": "/a/model.gguf"}) != key_of(
        REQUEST, **{"llm.model": "/b/model.gguf"}
    )


def test_with_several_services_the_role_may_decide_which_is_asked() -> None:
    both = fleet(), fleet(model="n")
    assert key_of(REQUEST, *both) != key_of(changed(role="other"), *both)


def test_another_simulated_model_is_another_model() -> None:
    one, two = SimulatedService(seed=1).spec(), SimulatedService(seed=2).spec()
    assert key_of(REQUEST, one) == key_of(REQUEST, SimulatedService(seed=1).spec())
    assert key_of(REQUEST, one) != key_of(REQUEST, two)


def test_what_does_not_say_by_what_it_decides_is_refused() -> None:
    with pytest.raises(UncacheableService, match="ScriptedService does not say"):
        CacheKeys([ScriptedService(["a"]).spec()], {})


def test_texts_to_embed() -> None:
    keys = CacheKeys([fleet()], {})
    one = EmbedRequest(texts=("a",), session="s")
    assert keys.embed(one) == keys.embed(EmbedRequest(texts=("a",), role="r")) is not None
    others = [
        EmbedRequest(texts=("b",)),
        EmbedRequest(texts=("a", "b")),
        EmbedRequest(texts=("a",), dimensions=4),
    ]
    assert len({keys.embed(each) for each in (one, *others)}) == 4


def test_a_field_that_is_added_later_leaves_keys_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of()

    class Later(ChatRequest, frozen=True, kw_only=True):
        effort: str | None = None

    later = Later(**msgspec.structs.asdict(REQUEST))
    assert key_of(later) == before
    assert key_of(msgspec.structs.replace(later, effort="high")) != before


@dataclass(frozen=True)
class Own:
    depth: int

    def __call__(self, name: str) -> Any: ...


def test_a_dial_of_ones_own_is_known_by_its_fields() -> None:
    def spec(depth: int) -> ReplicatedClientSpec:
        return ReplicatedClientSpec(model="m", replicas=("x",), backend_factory=Own(depth))

    assert key_of(REQUEST, spec(1)) == key_of(REQUEST, spec(1)) != key_of(REQUEST, spec(2))
