"""The scripted model says what it is told, and tells clearly when it cannot."""

import pickle

import pytest

from peerloom.errors import ConfigError, ContentFiltered, ContextExceeded, LLMRejected
from peerloom.services.llm.base import LLM, ChatReply, ChatRequest
from peerloom.services.llm.scripted import ScriptedService


def ask(text: str) -> ChatRequest:
    return ChatRequest(messages=[{"role": "user", "content": text}])


def shout(request: ChatRequest) -> str:
    return request.messages[-1]["content"].upper()


def client(script, **options) -> LLM:
    return ScriptedService(script, **options).spec().connect()


async def test_a_list_is_said_in_order_by_all_clients_together(tmp_path) -> None:
    service = ScriptedService(["one", "two"])
    spec = await service.start("llm", None, print, tmp_path)  # type: ignore[arg-type]  # starts no process
    first, second = spec.connect(), spec.connect()
    assert [(await first.chat(ask("a"))).text, (await second.chat(ask("b"))).text] == ["one", "two"]
    assert [request.messages[0]["content"] for request in service.requests] == ["a", "b"]
    with pytest.raises(LLMRejected, match="has 2 replies and all are used up; the last message was 'c'"):
        await first.chat(ask("c"))


async def test_a_list_may_repeat() -> None:
    llm = client(["one", "two"], repeat=True)
    assert [(await llm.chat(ask("?"))).text for _ in range(5)] == ["one", "two", "one", "two", "one"]


async def test_a_mapping_answers_by_words_of_the_last_message() -> None:
    llm = client({"France": "Paris", "Italy": "Rome"})
    assert (await llm.chat(ask("capital of Italy?"))).text == "Rome"
    with pytest.raises(LLMRejected, match=r"no reply to 'capital of Peru.*it knows 'France', 'Italy'"):
        await llm.chat(ask("capital of Peru?"))


async def test_functions_may_be_sync_or_async() -> None:
    async def later(request: ChatRequest) -> ChatReply:
        return ChatReply(text="later", model="mine")

    assert (await client(shout).chat(ask("hey"))).text == "HEY"
    assert (await client(later).chat(ask("hey"))).model == "mine"


async def test_a_reply_looks_like_one() -> None:
    reply = await client(["one"]).chat(ask("?"))
    assert reply.usage.calls == 1
    assert reply.message == {"role": "assistant", "content": "one"}


async def test_exceptions_are_raised_and_withheld_replies_too() -> None:
    llm = client([ContextExceeded("too long"), ChatReply(text="", finish_reason="content_filter")])
    with pytest.raises(ContextExceeded, match="too long"):
        await llm.chat(ask("?"))
    with pytest.raises(ContentFiltered):
        await llm.chat(ask("?"))


async def test_a_function_that_returns_nonsense_is_told() -> None:
    with pytest.raises(LLMRejected, match="returned NoneType: return a str"):
        await client(lambda request: None).chat(ask("?"))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("hello", "are a str: give a list"),
        (3, "are a int"),
        (["a", 7], r"\[1\] is int: give a str"),
        ({"a": ValueError}, r"\['a'\] is type"),
        ({3: "a"}, "key 3 is no text"),
    ],
)
def test_wrong_scripts_are_refused_by_place(script, words) -> None:
    with pytest.raises(ConfigError, match=words):
        ScriptedService(script)


async def test_no_script_is_fine_until_it_is_asked() -> None:
    with pytest.raises(LLMRejected, match="has 0 replies"):
        await client(()).chat(ask("?"))


async def test_what_can_travel_travels() -> None:
    for script in (shout, {"hey": "HEY"}):
        service = ScriptedService(script)
        await service.spec().connect().chat(ask("hey"))
        copy = pickle.loads(pickle.dumps(service))
        assert copy.requests == []
        assert (await copy.spec().connect().chat(ask("hey"))).text == "HEY"
    pickle.dumps(ScriptedService(["a"], repeat=True))
    with pytest.raises(TypeError, match="several processes cannot share: use engine=local"):
        pickle.dumps(ScriptedService(["a"]))
