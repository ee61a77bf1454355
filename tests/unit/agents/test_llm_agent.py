import pickle
from pathlib import Path
from typing import Any

import pytest

from peerloom.agents.base import Services
from peerloom.agents.llm import LLMAgent, merge
from peerloom.errors import (
    AnswerError,
    ConfigError,
    ContentFiltered,
    LLMRejected,
    OutputTruncated,
    PromptError,
)
from peerloom.services.llm.base import ChatReply, ChatRequest
from peerloom.services.llm.scripted import ScriptedService
from peerloom.task import Header, Task, TaskId, Turn, Usage, new_task

ROW = {"question": "Why?", "options": ["x", "y", "z"]}


def task(role: str = "me", *turns: Turn, seed: int = 5, row: Any = None) -> Task:
    made = new_task(Header(TaskId(0, 1, 2)), row or ROW, seed=seed)
    for turn in turns:
        made = made.with_turns(turn)
    return made.with_next(role)


def said(agent: str, content: str) -> Turn:
    return Turn(agent, {"role": "user", "content": content})


async def acted(agent: LLMAgent, *replies: Any, on: Task | None = None) -> tuple[Turn, list[ChatRequest]]:
    service = ScriptedService(list(replies))
    turn = await agent.act(on or task(), Services(service.spec().connect()))
    return turn, service.requests


def cut(text: str) -> ChatReply:
    return ChatReply(text=text, finish_reason="length", usage=Usage(9, 4, 0, 1))


async def test_a_reply_becomes_what_the_role_says():
    agent = LLMAgent("Q: {{ input.question }}", max_tokens=9, temperature=0.5, top_p=0.9, stop=("\n",))
    turn, (request,) = await acted(agent, " Because. ")
    assert turn.message == {"role": "assistant", "content": "Because."}
    assert (turn.value, turn.finish_reason) == (None, "stop")
    assert request.messages == [{"role": "user", "content": "Q: Why?"}]
    assert (request.max_tokens, request.temperature, request.top_p, request.stop) == (9, 0.5, 0.9, ("\n",))
    assert (request.choices, request.schema, request.session, request.role) == ((), None, "0-1-2", "me")


async def test_what_is_not_said_aloud_is_returned():
    turn, _ = await acted(LLMAgent("Q", chat_role=None), "Because.")
    assert (turn.message, turn.value) == (None, "Because.")


async def test_messages_come_shared_first_and_the_roles_own_task_last():
    agent = LLMAgent(
        "Now you.",
        system="Be brief.",
        opening="{{ input.question }}",
        examples=[("2 + 2?", "4")],
        dialogue=True,
    )
    history = (said("you", "one"), said("me", "two"), Turn("judge", value=3), said("you", "three"))
    _, (request,) = await acted(agent, "four", on=task("me", *history))
    assert request.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Why?\n\n2 + 2?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three\n\nNow you."},
    ]


def test_each_role_sees_the_dialogue_from_its_own_side():
    agent = LLMAgent(opening="Q", dialogue=True)
    history = (said("a", "from a"), said("b", "from b"))
    sides = {role: [m["role"] for m in agent.messages(task(role, *history))] for role in "ab"}
    assert sides == {"a": ["user", "assistant", "user"], "b": ["user", "assistant"]}


def test_empty_messages_are_left_out():
    assert merge([{"role": "user", "content": ""}]) == []
    assert LLMAgent("{% if last %}again{% endif %}", opening="Q").messages(task()) == [
        {"role": "user", "content": "Q"}
    ]


async def test_a_subclass_may_write_its_messages_in_python():
    class Poet(LLMAgent):
        def messages(self, task: Task) -> list[dict[str, Any]]:
            return [{"role": "user", "content": f"Rhyme on {task.input['question']}"}]

    turn, (request,) = await acted(Poet(max_tokens=7), "Sky.")
    assert turn.text == "Sky."
    assert request.messages[0]["content"] == "Rhyme on Why?"
    assert request.max_tokens == 7


async def test_a_choice_goes_into_the_request_and_is_read():
    turn, (request,) = await acted(LLMAgent("Q", choices=["yes", "no"], chat_role=None), "Yes.")
    assert turn.value == "yes"
    assert request.choices == ("yes", "no")


async def test_choices_may_depend_on_the_task():
    def letters(task: Task) -> str:
        return "ABCDEF"[: len(task.input["options"])]

    turn, (request,) = await acted(LLMAgent("Q", choices=letters, chat_role=None), "C")
    assert (turn.value, request.choices) == ("C", ("A", "B", "C"))


async def test_a_row_without_choices_says_so():
    with pytest.raises(PromptError, match="the choices of 'me' are empty for this row"):
        await acted(LLMAgent("Q", choices=lambda task: ()), "C")


@pytest.mark.parametrize("text", ["", " \n\t", "\u200b", "\ufeff \u2060\x00"])
async def test_a_prompt_without_a_visible_character_is_not_sent(text: str):
    with pytest.raises(PromptError, match="the prompt of 'me' is empty for this row"):
        await acted(LLMAgent("{{ input.text }}"), "Yes", on=task(row={"text": text}))


async def test_a_prompt_of_one_visible_character_is_sent():
    _, (request,) = await acted(LLMAgent("{{ input.text }}"), "Yes", on=task(row={"text": "\u200b?"}))
    assert request.messages[-1]["content"] == "\u200b?"


async def test_a_schema_goes_into_the_request_and_is_checked():
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    turn, (request,) = await acted(LLMAgent("Q", schema=schema), '{"n": 4}')
    assert turn.value == {"n": 4}
    assert turn.text == '{"n": 4}'
    assert request.schema == schema


async def test_what_is_no_answer_is_asked_again_with_the_error_shown():
    turn, requests = await acted(LLMAgent("Q", parse=int, chat_role=None), "many", "some", "12")
    assert turn.value == 12
    assert [message["role"] for message in requests[1].messages] == ["user", "assistant", "user"]
    assert requests[1].messages[1]["content"] == "many"
    assert "That reply cannot be used: invalid literal" in requests[1].messages[2]["content"]
    assert "'some'" in requests[2].messages[2]["content"]
    assert len(requests[2].messages) == 3, "only the last failure is shown"
    assert len({request.seed for request in requests}) == 3


async def test_an_empty_reply_is_asked_again():
    turn, requests = await acted(LLMAgent("Q"), "  ", "words")
    assert turn.text == "words"
    assert [message["role"] for message in requests[1].messages] == ["user"]
    assert "it is empty" in requests[1].messages[0]["content"]


async def test_after_the_last_retry_the_task_fails_with_the_reply():
    with pytest.raises(
        AnswerError, match="2 replies, none usable; the last one, 'maybe': it names none"
    ) as raised:
        await acted(LLMAgent("Q", choices=["yes", "no"], retries=1), "perhaps", "maybe")
    assert (raised.value.outcome, raised.value.reason) == ("failed", "answer")


async def test_a_long_bad_reply_is_shown_in_part():
    _, requests = await acted(LLMAgent("Q", parse=int), "x" * 10_000, "1")
    assert len(requests[1].messages[1]["content"]) == 2_000


async def test_a_cut_reply_truncates_the_task():
    with pytest.raises(OutputTruncated, match="cut after 4 tokens, by max_tokens=4") as raised:
        await acted(LLMAgent("Q", max_tokens=4), cut("Ice floats. Bec"))
    assert (raised.value.outcome, raised.value.reason) == ("truncated", "max_tokens")
    with pytest.raises(OutputTruncated, match="by the server's limit"):
        await acted(LLMAgent("Q"), cut("Ice floats. Bec"))


async def test_a_cut_reply_may_be_trimmed():
    turn, _ = await acted(LLMAgent("Q", on_length="trim"), cut("Ice floats. Bec"))
    assert (turn.text, turn.finish_reason) == ("Ice floats.", "length")


async def test_a_cut_reply_that_holds_a_whole_answer_is_one():
    turn, _ = await acted(LLMAgent("Q", choices=["yes", "no"]), cut("yes"))
    assert turn.value == "yes"
    with pytest.raises(OutputTruncated):
        await acted(LLMAgent("Q", schema={"type": "object"}), cut('{"n": '))
    turn, requests = await acted(
        LLMAgent("Q", schema={"type": "object"}, on_length="trim"), cut('{"n": '), "{}"
    )
    assert (turn.value, len(requests)) == ({}, 2)


async def test_a_withheld_reply_filters_the_task():
    class Withholding:
        async def chat(self, request: ChatRequest) -> ChatReply:
            return ChatReply(text="", finish_reason="content_filter")

        async def close(self) -> None: ...

    with pytest.raises(ContentFiltered):
        await LLMAgent("Q").act(task(), Services(Withholding()))


async def test_what_the_service_raises_passes_through():
    with pytest.raises(LLMRejected, match="no"):
        await acted(LLMAgent("Q"), LLMRejected("no"))


async def test_seeds_repeat_for_a_task_and_differ_between_tasks_and_turns():
    async def seed_of(on: Task) -> int | None:
        _, (request,) = await acted(LLMAgent("Q"), "words", on=on)
        return request.seed

    later = task("me", said("you", "one"))
    seeds = [await seed_of(on) for on in (task(), task(), later, task(seed=6))]
    assert seeds[0] == seeds[1] == 830578054, "the same in every process and release"
    assert len(set(seeds)) == 3
    assert all(seed is not None and 0 <= seed < 2**31 for seed in seeds)


async def test_an_agent_travels_to_other_processes(tmp_path: Path):
    file = tmp_path / "ask.j2"
    file.write_text("Q: {{ input.question }}")
    agent = LLMAgent(file, system="Be brief.", schema={"type": "integer"})
    file.unlink()
    arrived = pickle.loads(pickle.dumps(agent))
    turn, (request,) = await acted(arrived, "3")
    assert turn.value == 3
    assert request.messages[1] == {"role": "user", "content": "Q: Why?"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing to ask: give a prompt"),
        ({"prompt": "Q", "choices": ["a"], "parse": int}, "one of choices, schema and parse"),
        ({"prompt": "{{ row }}"}, "<prompt>: there is no 'row'"),
        ({"prompt": "Q", "system": "{% if %}"}, "<system>:1"),
        ({"prompt": "Q", "schema": {"type": "nothing"}}, r"schema: at \$\.type"),
        ({"prompt": Path("absent.j2")}, "absent.j2: cannot be read"),
    ],
)
def test_what_cannot_work_is_refused_when_made(arguments: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        LLMAgent(**arguments)
