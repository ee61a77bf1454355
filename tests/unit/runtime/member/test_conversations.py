"""The conversations in rows: whose messages they have, in which order, and where they begin and end."""

from pathlib import Path
from typing import Any

import pytest

import peerloom
from peerloom import LLMAgent, Loop, Sequence, Task, Turn
from peerloom.agents.base import Services
from peerloom.services.llm.base import ChatRequest

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def only_row(workflow: Any, agents: dict[str, Any], run_dir: Path, llm: Any = None, **config: Any) -> Any:
    def echo(request: ChatRequest) -> str:
        return f"{request.role} said {len(request.messages)}"

    done = peerloom.run(
        workflow=workflow,
        agents=agents,
        source=[{"topic": "rivers"}],
        llm=llm or echo,
        engine="local",
        run_dir=run_dir / "run",
        progress=False,
        config=config,
    )
    [row] = done.rows(rejected=True)
    return row


def pairs(messages: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    return [(message["role"], message.get("content")) for message in messages]


def test_a_dialogue_begins_with_system_and_opening_and_ends_with_the_assistant(tmp_path: Path) -> None:
    agents = {
        "doctor": LLMAgent("Reply.", system="You heal.", opening="On {{ input.topic }}.", dialogue=True),
        "patient": LLMAgent("Ask.", dialogue=True, chat_role="user"),
        "over": LLMAgent("Over?", chat_role=None),
    }
    row = only_row(
        Loop("doctor", "patient", "over", until=lambda task: False, max_rounds=2), agents, tmp_path
    )
    assert pairs(row["messages"]) == [
        ("system", "You heal."),
        ("user", "On rivers."),
        ("assistant", "doctor said 2"),
        ("user", "patient said 1"),
        ("assistant", "doctor said 4"),
    ]
    assert "conversations" not in row


def test_a_user_who_speaks_first_follows_the_context_of_the_assistant(tmp_path: Path) -> None:
    agents = {
        "patient": LLMAgent("Ask.", chat_role="user"),
        "doctor": LLMAgent("Reply.", system="You heal.", dialogue=True),
    }
    row = only_row(Sequence("patient", "doctor"), agents, tmp_path)
    assert pairs(row["messages"]) == [
        ("system", "You heal."),
        ("user", "patient said 1"),
        ("assistant", "doctor said 2"),
    ]


def test_an_agent_without_dialogue_has_its_prompts_as_the_users_messages(tmp_path: Path) -> None:
    agents = {
        "writer": LLMAgent("Draft {{ turns | length }} on {{ input.topic }}."),
        "critic": LLMAgent("Criticize.", chat_role="user"),
    }
    row = only_row(Sequence("writer", "critic", "writer"), agents, tmp_path)
    assert pairs(row["messages"]) == [
        ("user", "Draft 0 on rivers."),
        ("assistant", "writer said 1"),
        ("user", "Draft 2 on rivers."),
        ("assistant", "writer said 1"),
    ]


def test_several_assistants_have_a_conversation_each(tmp_path: Path) -> None:
    agents = {role: LLMAgent(opening="Topic.", dialogue=True) for role in ("left", "right")}
    row = only_row(Sequence("left", "right", "left"), agents, tmp_path)
    left, right = "left said", "right said"
    assert {role: pairs(messages) for role, messages in row["conversations"].items()} == {
        "left": [
            ("user", "Topic."),
            ("assistant", f"{left} 1"),
            ("user", f"{right} 1"),
            ("assistant", f"{left} 3"),
        ],
        "right": [("user", f"Topic.\n\n{left} 1"), ("assistant", f"{right} 1")],
    }
    assert row["messages"] == row["conversations"]["left"]


class Own:
    """An agent that asks the model itself."""

    async def act(self, task: Task, services: Services) -> Turn:
        messages = [{"role": "user", "content": "What about rivers?"}]
        reply = await services.llm.chat(ChatRequest(messages=messages, tools=(TOOL,)))
        return Turn("", {"role": "assistant", "content": reply.text})


def test_without_a_context_the_request_is_the_beginning(tmp_path: Path) -> None:
    row = only_row(Sequence("own"), {"own": Own()}, tmp_path)
    assert pairs(row["messages"]) == [("user", "What about rivers?"), ("assistant", "own said 1")]
    assert row["tools"] == [TOOL]


class Calls:
    """Calls two tools; only the first one gets a result."""

    async def act(self, task: Task, services: Services) -> Turn:
        if task.turns:
            return Turn("", {"role": "assistant", "content": "It is 3."})
        calls = [
            {"id": id, "type": "function", "function": {"name": "add", "arguments": "{}"}} for id in "ab"
        ]
        message = {"role": "assistant", "content": None, "tool_calls": calls}
        return Turn("", message, context=[{"role": "user", "content": "1 + 2?"}])


class Results:
    async def act(self, task: Task, services: Services) -> Turn:
        return Turn("", {"role": "tool", "tool_call_id": "a", "content": "3"})


def test_calls_without_a_result_are_left_out(tmp_path: Path) -> None:
    row = only_row(Sequence("calls", "results", "calls"), {"calls": Calls(), "results": Results()}, tmp_path)
    assert [message["role"] for message in row["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert [call["id"] for call in row["messages"][1]["tool_calls"]] == ["a"]


def test_a_row_without_an_assistant_has_no_messages(tmp_path: Path) -> None:
    row = only_row(Sequence("user"), {"user": LLMAgent("Ask.", chat_role="user")}, tmp_path)
    assert row["messages"] == []


@pytest.mark.parametrize("recorded", ["full", "delta", "off"])
def test_a_row_has_the_requests_as_they_were_sent(recorded: str, tmp_path: Path) -> None:
    sent: list[ChatRequest] = []

    def llm(request: ChatRequest) -> str:
        sent.append(request)
        return "maybe" if len(sent) == 2 else "yes" if request.choices else "A long statement about rivers."

    agents = {
        "writer": LLMAgent("Write on {{ input.topic }}.", system="You write in plain and short sentences."),
        "judge": LLMAgent('Is it good? "{{ last.text }}"', choices=["yes", "no"], temperature=0.5),
    }
    row = only_row(
        Sequence("writer", "judge", "writer"), agents, tmp_path, llm, **{"record.requests": recorded}
    )
    if recorded == "off":
        assert not any("calls" in turn for turn in row["turns"])
        return
    calls = [call for turn in row["turns"] for call in turn["calls"]]
    assert [call["request"]["messages"] for call in calls] == [request.messages for request in sent]
    assert [call["request"]["seed"] for call in calls] == [request.seed for request in sent]
    assert [len(turn["calls"]) for turn in row["turns"]] == [1, 2, 1]
    repaired = row["turns"][1]["calls"]
    assert [call["reply"]["text"] for call in repaired] == ["maybe", "yes"]
    assert repaired[0]["request"]["choices"] == ["yes", "no"]
    assert repaired[0]["request"]["temperature"] == 0.5
    assert "temperature" not in calls[-1]["request"]


class Invalid:
    """Asks the model, and returns the reply with a value that is not JSON."""

    async def act(self, task: Task, services: Services) -> Turn:
        reply = await services.llm.chat(
            ChatRequest(messages=[{"role": "user", "content": "Why?"}], role="own")
        )
        return Turn("", {"role": "assistant", "content": reply.text}, value=float("nan"))


def test_the_calls_of_a_turn_that_failed_afterwards_are_in_the_row(tmp_path: Path) -> None:
    row = only_row(Sequence("own"), {"own": Invalid()}, tmp_path)
    assert row["outcome"] == "failed"
    [call] = row["turns"][0]["calls"]
    assert (call["request"]["messages"][0]["content"], call["reply"]["text"]) == ("Why?", "own said 1")


class Both:
    """Asks the model twice, and returns a turn for each reply."""

    async def act(self, task: Task, services: Services) -> list[Turn]:
        messages: list[dict[str, Any]] = [{"role": "user", "content": f"What about {task.input['topic']}?"}]
        turns: list[Turn] = []
        for number in range(2):
            messages[0]["content"] += f" This is question {number} about it."
            reply = await services.llm.chat(ChatRequest(messages=messages, role="both"))
            messages.append({"role": "assistant", "content": f"{reply.text}, which is a long reply"})
            turns.append(Turn("", messages[-1]))
        return turns


def test_all_requests_are_restored_though_a_step_has_several_turns(tmp_path: Path) -> None:
    row = only_row(Sequence("both", "both"), {"both": Both()}, tmp_path)
    lengths = [[len(call["request"]["messages"]) for call in turn.get("calls", ())] for turn in row["turns"]]
    assert lengths == [[], [1, 2], [], [1, 2]]
    texts = [call["reply"]["text"] for turn in row["turns"] for call in turn.get("calls", ())]
    assert texts == ["both said 1", "both said 2"] * 2
    requests = [call["request"] for turn in row["turns"] for call in turn.get("calls", ())]
    assert [request["messages"][0]["content"].count("question") for request in requests] == [1, 2, 1, 2]
