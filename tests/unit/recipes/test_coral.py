import asyncio
import pickle
from collections import Counter
from typing import Any

import orjson
import pytest

from peerloom import recipes
from peerloom.errors import ConfigError, RowError
from peerloom.recipes.coral.rows import check_row, read_row
from peerloom.runtime.member.conversations import conversations
from peerloom.runtime.steps.executor import StepExecutor
from peerloom.services.llm.base import ChatReply, ChatRequest
from peerloom.services.llm.scripted import ScriptedService
from peerloom.task import End, Header, Task, TaskId, new_task

CORAL = recipes.find("coral")
ROW = {"question": "Which metal rusts?", "options": ["Gold", "Iron", "Tin"], "answer": "B", "category": "x"}


def discuss(*replies: str | ChatReply, row: Any = ROW, **params: Any) -> tuple[Task, list[ChatRequest]]:
    """The finished task of one dialogue; `replies` are a statement and its letter in turn."""

    async def finished() -> tuple[Task, list[ChatRequest]]:
        program, service = CORAL.build(params), ScriptedService(list(replies))
        stage = StepExecutor(program.workflow, program.agents, service.spec().connect())
        task = new_task(Header(TaskId(0, 0, 0)), row, seed=1)
        task = task.with_next(program.workflow.next(task))
        while task.end is None:
            task = await stage.step(task)
        return task, service.requests

    return asyncio.run(finished())


def ended(task: Task) -> End:
    assert task.end is not None
    return task.end


def test_they_agree_on_the_right_answer():
    task, requests = discuss("It is B.", "B", "Yes, B.", "B")
    assert ended(task) == End(
        "completed",
        "",
        {
            "agreement": True,
            "agreement_correctness": True,
            "correct": {"teacher": True, "student": True},
            "beliefs": {"teacher": "B", "student": "B"},
            "answer": "B",
            "turns": 2,
        },
    )
    roles = [turn.agent for turn in task.turns]
    assert roles == ["teacher", "extractor", "matcher", "student", "extractor", "matcher"]
    assert len(requests) == 4


def test_agreement_on_a_wrong_answer_is_not_correct():
    result = ended(discuss("C", "C", "C", "C")[0]).result
    assert (result["agreement"], result["agreement_correctness"]) == (True, False)


def test_a_teacher_who_changes_its_mind_ends_the_dialogue():
    task, _ = discuss("A", "A", "B", "B", "You are right, B.", "B")
    assert ended(task).result["turns"] == 3
    assert ended(task).result["agreement_correctness"] is True
    assert task.turns[-1].agent == "matcher"


def test_without_agreement_it_ends_after_the_last_round():
    task, _ = discuss("A", "A", "B", "B", "A", "A", "C", "C", max_rounds=2)
    result = ended(task).result
    assert (ended(task).outcome, result["agreement"], result["turns"]) == ("completed", False, 4)
    assert result["beliefs"] == {"teacher": "A", "student": "C"}


def test_who_states_nothing_agrees_with_nobody():
    task, _ = discuss("Hm.", "none", "Hm.", "none", max_rounds=1)
    result = ended(task).result
    assert (result["agreement"], result["beliefs"]) == (False, {"teacher": None, "student": None})


def test_a_statement_that_is_cut_is_trimmed():
    long = ChatReply(text="It is B. Iron ru", finish_reason="length")
    task, _ = discuss(long, "B", "B", "B", max_tokens=8)
    assert (task.turns[0].text, task.turns[0].finish_reason) == ("It is B.", "length")
    assert ended(task).outcome == "completed"


def test_an_extractor_that_gives_no_letter_fails_the_row():
    task, _ = discuss("B", "what?", "huh?", "eh?")
    assert (ended(task).outcome, ended(task).reason) == ("failed", "answer")


def test_the_rows_messages_are_question_and_teacher():
    task, _ = discuss("It is B.", "B", "Yes, B.", "B")
    [(role, messages)] = conversations(task, task.turns).items()
    assert role == "teacher"
    assert [message["role"] for message in messages] == ["user", "assistant"], "it ends with the teacher"
    assert messages[0]["content"] == "Question: Which metal rusts?\nOptions:\nA. Gold\nB. Iron\nC. Tin"


def test_every_call_begins_with_the_question_and_ends_with_the_roles_task():
    task, requests = discuss("It is A.", "A", "No, B.", "B", "B.", "B")
    question = conversations(task, task.turns)["teacher"][0]["content"]
    assert all(request.messages[0]["content"].startswith(question) for request in requests)
    assert requests[1].choices == ("A", "B", "C", "none")
    assert requests[1].messages[-1]["content"] == "Statement: It is A."
    assert "It is A.\n\nYour teacher said this." in requests[2].messages[-1]["content"]
    assert [message["role"] for message in requests[4].messages] == ["user", "assistant", "user"]
    assert requests[4].messages[-1]["content"].startswith("No, B.\n\nYour student said this.")


def test_options_reach_the_calls():
    _, requests = discuss("B", "B", "B", "B", max_tokens=99, temperature=0.1)
    assert [(r.max_tokens, r.temperature) for r in requests[::2]] == [(99, 0.1)] * 2
    with pytest.raises(ConfigError, match="max_rounds"):
        CORAL.build({"max_rounds": 0})


def test_its_agents_travel_to_other_processes():
    agents = CORAL.build({}).agents
    assert pickle.loads(pickle.dumps(agents["teacher"])).max_tokens == 64


@pytest.mark.parametrize("answer", ["B", 1, "Iron"])
def test_the_answer_is_a_letter_an_index_or_a_text(answer: str | int):
    assert read_row({**ROW, "answer": answer}).right == "B"


def test_26_options_have_letters():
    row = read_row({"question": "q", "options": [str(n) for n in range(26)], "answer": "Z"})
    assert (row.right, row.letters[-1], len(row.letters)) == ("Z", "Z", 26)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": None}, "got `null` - at .*question"),
        ({"question": ""}, "length >= 1 - at .*question"),
        ({"options": "Gold"}, "options"),
        ({"options": ["Gold"]}, "length >= 2.*options"),
        ({"options": ["x"] * 27}, "length <= 26.*options"),
        ({"options": ["Gold", 3]}, r"options"),
        ({"answer": "D"}, "'answer' is 'D', which names none of the 3 options"),
        ({"answer": 3}, "'answer' is 3"),
        ({"answer": -1}, "'answer' is -1"),
        ({"answer": True}, "answer"),
        ({"answer": None}, "answer"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], message: str):
    with pytest.raises(RowError, match=message):
        check_row({**ROW, **change})


@pytest.mark.parametrize("field", ["question", "options", "answer"])
def test_a_missing_field_is_named(field: str):
    with pytest.raises(RowError, match=f"missing required field `{field}`") as raised:
        check_row({key: value for key, value in ROW.items() if key != field})
    assert raised.value.reason == "bad_row"


@pytest.mark.parametrize("row", [[], "text", None, 3])
def test_a_row_that_is_no_object_is_refused(row: object):
    with pytest.raises(RowError, match="not a multiple-choice question"):
        check_row(row)


def questions() -> list[dict[str, Any]]:
    assert CORAL.sample is not None
    return [orjson.loads(line) for line in CORAL.sample.read_bytes().splitlines()]


def test_the_bundled_questions_are_varied():
    rows = questions()
    for row in rows:
        check_row(row)
        assert list(row) == ["question_id", "question", "options", "answer", "category"]
        assert 4 <= len(row["options"]) <= 8
        assert len(set(row["options"])) == len(row["options"])
    assert len(rows) >= 40
    assert len({row["question"] for row in rows}) == len({row["question_id"] for row in rows}) == len(rows)
    assert len({row["category"] for row in rows}) >= 10
    letters = Counter(row["answer"] for row in rows)
    assert set("ABCDEFG") <= set(letters)
    assert max(letters.values()) <= len(rows) / 4
