"""Messages that are none, from agents: a failed row with a reason, never the end of a process."""

import random
from pathlib import Path
from typing import Any

import pytest

import peerloom
from peerloom import Sequence, Turn
from peerloom.agents.base import Services
from peerloom.services.llm.base import ChatRequest
from peerloom.task import Task

TEXT = {"role": "assistant", "content": "x"}
ODD: list[Any] = [
    *(5, "x", [], {}, {"role": "assistant", "content": 7}, {"role": 5, "content": "x"}, {"content": "x"}),
    *({"role": ["user"], "content": "x"}, {**TEXT, "content": {"a": 1}}, {**TEXT, "content": ["a"]}),
    *({**TEXT, "name": 3}, {**TEXT, "tool_calls": 5}, {**TEXT, "tool_calls": {"a": 1}}),
    *({**TEXT, "tool_calls": [5]}, {**TEXT, "tool_calls": [{"id": [1]}]}),
    *({"role": "tool", "tool_call_id": [1], "content": "x"}, {**TEXT, "tool_calls": [{"function": 1}]}),
]
FINE: list[Any] = [
    *(TEXT, {"role": "assistant"}, {"role": "assistant", "content": None}, {"role": "tool", "content": "x"}),
    *(
        {**TEXT, "content": []},
        {**TEXT, "content": [{"type": "text", "text": "a"}]},
        {**TEXT, "tool_calls": None},
    ),
    *(
        {**TEXT, "tool_calls": [{}]},
        {**TEXT, "tool_calls": [{"id": "a", "function": {"arguments": {"x": 1}}}]},
    ),
    *({"role": "user"}, {"role": "system", "content": "x"}, {"role": "tool", "tool_call_id": "a"}),
]


class Says:
    """Says the message of the row."""

    async def act(self, task: Task, services: Services) -> Turn:
        return Turn("", task.input["message"])


class Precedes:
    """Gives the message of the row as context."""

    async def act(self, task: Task, services: Services) -> Turn:
        return Turn("", TEXT, context=[task.input["message"]])  # pyright: ignore[reportArgumentType]


class Asks:
    """Sends the message of the row to the model."""

    async def act(self, task: Task, services: Services) -> Turn:
        return Turn(
            "",
            {
                **TEXT,
                "content": (await services.llm.chat(ChatRequest(messages=[task.input["message"]]))).text,
            },
        )


def outcomes(agent: Any, messages: list[Any], path: Path) -> list[tuple[str, str]]:
    result = peerloom.run(
        workflow=Sequence("odd"),
        agents={"odd": agent},
        source=[{"message": message} for message in messages],
        llm="simulated",
        engine="local",
        run_dir=path / "run",
        progress=False,
    )
    rows = list(result.rows(rejected=True))
    assert len(rows) == len(messages)
    return [(row["outcome"], row.get("detail", "")) for row in rows]


@pytest.mark.parametrize("agent", [Says, Precedes, Asks])
def test_a_message_of_another_form_fails_its_row(agent: Any, tmp_path: Path) -> None:
    for outcome, detail in outcomes(agent(), ODD, tmp_path):
        assert outcome == "failed"
        assert "TypeError: message" in detail or "TypeError: context[0]" in detail


@pytest.mark.parametrize("agent", [Says, Precedes])
def test_any_message_of_the_right_form_is_kept(agent: Any, tmp_path: Path) -> None:
    assert {outcome for outcome, _ in outcomes(agent(), FINE, tmp_path)} == {"completed"}


class Draws:
    """Says one of all messages, with one of all before it."""

    async def act(self, task: Task, services: Services) -> Turn:
        chance = random.Random(f"{task.seed} {len(task.turns)}")
        context: Any = [chance.choice(FINE)] if chance.random() < 0.5 else 5 if chance.random() < 0.01 else ()
        return Turn("", chance.choice(FINE), context=context, context_only=chance.random() < 0.3)


def test_any_order_of_messages_becomes_a_row(tmp_path: Path) -> None:
    result = peerloom.run(
        workflow=Sequence("a", "b", "a", "b", "b", "a"),
        agents={"a": Draws(), "b": Draws()},
        source=[{} for _ in range(500)],
        llm="simulated",
        engine="local",
        run_dir=tmp_path / "run",
        progress=False,
    )
    rows = list(result.rows(rejected=True))
    assert len(rows) == 500
    assert {row.get("detail", "") for row in rows} <= {"", *(f"{role}: {BAD_CONTEXT}" for role in "ab")}


BAD_CONTEXT = "TypeError: context: a int; it must be a list of messages"
