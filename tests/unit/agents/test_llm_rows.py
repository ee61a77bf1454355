"""What becomes of replies in the rows of a run: mended, thoughts apart, tools called, cut or withheld."""

import json
from pathlib import Path
from typing import Any

import pytest

import peerloom
from peerloom import ChatReply, ConfigError, LLMAgent, Sequence, Task, Usage
from peerloom.agents.messages import dialogue, merge
from peerloom.services.llm.scripted import ScriptedService
from peerloom.task import Header, TaskId, Turn, new_task

PERSON = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aWNl"}}
SOUND = {"type": "input_audio", "input_audio": {"data": "aWNl", "format": "wav"}}


def call(arguments: Any, name: str = "weather") -> ChatReply:
    made = {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return ChatReply(text="", finish_reason="tool_calls", tool_calls=[made])


def ran(tmp_path: Path, agent: LLMAgent, *replies: Any) -> tuple[dict[str, Any], ScriptedService]:
    """The row of a run of one task, and the service with what it was asked."""
    service = ScriptedService(list(replies))
    result = peerloom.run(
        workflow=Sequence("me"),
        agents={"me": agent},
        source=[{"q": "Why?"}],
        llm=service,
        engine="local",
        run_dir=tmp_path / "run",
    )
    (row,) = result.rows(rejected=True)
    return row, service


def test_a_reply_with_slips_is_mended_and_not_asked_again(tmp_path: Path) -> None:
    row, service = ran(tmp_path, LLMAgent("Q", schema=PERSON), "Sure: {'age': 36,}")
    (turn,) = row["turns"]
    assert (row["outcome"], turn["value"]) == ("completed", {"age": 36})
    assert turn["message"]["content"] == "Sure: {'age': 36,}", "what was said stays as it was"
    assert len(service.requests) == 1


def test_what_is_mended_must_follow_the_schema_too(tmp_path: Path) -> None:
    row, service = ran(tmp_path, LLMAgent("Q", schema=PERSON), "{'age': 'old',}", '{"age": 36}')
    assert row["turns"][0]["value"] == {"age": 36}
    assert "it is not JSON" in service.requests[1].messages[-1]["content"]


def test_a_cut_reply_is_never_mended(tmp_path: Path) -> None:
    cut = ChatReply(text='{"age": 3', finish_reason="length", usage=Usage(9, 4, 0, 1))
    row, _ = ran(tmp_path, LLMAgent("Q", schema=PERSON), cut)
    assert (row["outcome"], row["reason"]) == ("truncated", "max_tokens")


def test_a_withheld_reply_filters_the_row(tmp_path: Path) -> None:
    row, _ = ran(tmp_path, LLMAgent("Q"), ChatReply(text="", finish_reason="content_filter"))
    assert (row["outcome"], row["reason"]) == ("filtered", "content_filter")


def test_a_hostile_reply_is_a_recorded_outcome(tmp_path: Path) -> None:
    hostile = '["a" "b" ' * 5_000
    row, _ = ran(tmp_path, LLMAgent("Q", schema=PERSON, retries=1), "[" * 50_000, hostile)
    assert (row["outcome"], row["reason"]) == ("failed", "answer")
    assert len(row["detail"]) <= 2_100


def test_tools_are_asked_for_and_calls_are_checked(tmp_path: Path) -> None:
    agent = LLMAgent("Q", tools=[WEATHER], tool_choice="required", top_logprobs=2)
    row, service = ran(tmp_path, agent, "no", call("{}", "wether"), call("{}"))
    assert (row["outcome"], row["reason"]) == ("failed", "answer")
    assert "in the arguments of weather: at $: 'city' is a required property" in row["detail"]
    asked = service.requests
    assert (asked[0].tools, asked[0].tool_choice, asked[0].top_logprobs) == ((WEATHER,), "required", 2)
    assert "it calls no tool: call weather" in asked[1].messages[-1]["content"]
    assert "it calls 'wether', which is not a tool: there are weather" in asked[2].messages[-1]["content"]
    assert '"name":"wether"' in asked[2].messages[-2]["content"]


@pytest.mark.parametrize("arguments", ['{"city": "Oslo"}', "{'city': 'Oslo',}", {"city": "Oslo"}])
def test_a_call_is_the_turns_value_and_part_of_its_message(tmp_path: Path, arguments: Any) -> None:
    row, _ = ran(tmp_path, LLMAgent("Q", tools=[WEATHER]), call(arguments))
    (turn,) = row["turns"]
    assert turn["value"] == [{"id": "c1", "name": "weather", "arguments": {"city": "Oslo"}}]
    (made,) = turn["message"]["tool_calls"]
    assert json.loads(made["function"]["arguments"]) == {"city": "Oslo"}
    assert turn["finish_reason"] == "tool_calls"


def test_a_cut_call_truncates_and_words_are_still_an_answer(tmp_path: Path) -> None:
    made = call('{"city": "Os')
    cut = ChatReply(text="", finish_reason="length", tool_calls=made.tool_calls)
    row, _ = ran(tmp_path / "a", LLMAgent("Q", tools=[WEATHER]), cut)
    assert (row["outcome"], row["reason"]) == ("truncated", "max_tokens")
    row, _ = ran(tmp_path / "b", LLMAgent("Q", tools=[WEATHER]), "It rains.")
    assert row["turns"][0]["message"]["content"] == "It rains."


def test_images_and_recordings_reach_the_request_untouched(tmp_path: Path) -> None:
    agent = LLMAgent("What is it?", opening="Look.", parts=lambda task: [IMAGE, SOUND])
    _, service = ran(tmp_path, agent, "Ice.")
    text = {"type": "text", "text": "Look.\n\nWhat is it?"}
    assert service.requests[0].messages == [{"role": "user", "content": [text, IMAGE, SOUND]}]


async def turn_of(agent: LLMAgent, reply: ChatReply) -> Turn:
    service = ScriptedService([reply])
    task = new_task(Header(TaskId(0, 0, 0)), {}, seed=1).with_next("me")
    return await agent.act(task, peerloom.Services(service.spec().connect()))


LOGPROBS = [{"token": "Ice", "logprob": -0.25, "top_logprobs": []}]
RICH = ChatReply(text="Ice", reasoning="Density.", logprobs=LOGPROBS, token_ids=[11])


async def test_a_turn_keeps_what_came_beside_the_words() -> None:
    extras = (await turn_of(LLMAgent("Q"), RICH)).extras
    assert extras is not None
    assert (extras.reasoning, extras.logprobs, extras.token_ids) == ("Density.", LOGPROBS, [11])
    assert extras.repaired is False
    extras = (await turn_of(LLMAgent("Q", schema=PERSON), ChatReply(text="{age: 3}"))).extras
    assert extras is not None and extras.repaired is True
    assert (await turn_of(LLMAgent("Q"), ChatReply(text="Ice"))).extras is None


def test_a_row_has_thoughts_apart_from_the_words(tmp_path: Path) -> None:
    row, _ = ran(tmp_path, LLMAgent("Q"), RICH)
    (turn,) = row["turns"]
    assert turn["message"] == {"role": "assistant", "content": "Ice"}
    assert (turn["reasoning"], turn["logprobs"], turn["token_ids"]) == ("Density.", LOGPROBS, [11])
    assert "repaired" not in turn
    assert "Density" not in str(row["messages"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tools": [{"name": "weather"}]}, r"tools\[0\] is not a function tool"),
        ({"tools": [WEATHER], "tool_choice": "wether"}, "tool_choice is 'wether': use auto.* one of weather"),
        ({"tool_choice": "required"}, "but there are no tools"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "thing"}}}]},
            r"tools\[0\], 'f': schema: at \$\.type",
        ),
    ],
)
def test_tools_that_cannot_work_are_refused_when_made(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LLMAgent("Q", **arguments)


def test_each_role_sees_its_own_calls_and_their_results() -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]
    asked = {"role": "assistant", "content": None, "tool_calls": calls}
    result = {"role": "tool", "tool_call_id": "c1", "content": "rain"}
    task: Task = new_task(Header(TaskId(0, 0, 0)), {}, seed=1)
    for turn in (
        Turn("user", {"role": "user", "content": "And Oslo?"}),
        Turn("agent", asked),
        Turn("tools", result),
        Turn("agent", {"role": "assistant", "content": "It rains."}),
    ):
        task = task.with_turns(turn)
    assert merge(dialogue(task.with_next("agent"))) == [
        {"role": "user", "content": "And Oslo?"},
        asked,
        result,
        {"role": "assistant", "content": "It rains."},
    ]
    assert dialogue(task.with_next("user")) == [
        {"role": "assistant", "content": "And Oslo?"},
        {"role": "user", "content": "It rains."},
    ]
    assert len(merge([asked, asked, result, result])) == 4
