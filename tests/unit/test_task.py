import msgspec
import pytest

from peerloom.errors import CodecError
from peerloom.task import (
    SCHEMA_VERSION,
    End,
    Header,
    Task,
    TaskId,
    Turn,
    Usage,
    decode,
    encode,
    new_task,
)

ROW = {"question": "Why?", "n": 3, "options": ["a", "ü"], "nested": {"x": None, "y": 1.5}}


def fresh(**changes: object) -> Task:
    task = new_task(Header(TaskId(1, 17, 2), attempt=3), ROW, seed=2**63 + 1, label="row-17", started=12.5)
    return msgspec.structs.replace(task, **changes)


def said(agent: str, text: str, value: object = None) -> Turn:
    return Turn(agent, {"role": "assistant", "content": text}, value, usage=Usage(10, 2, 4, 1), model="m")


def travelled(task: Task) -> Task:
    return decode(encode(task))


def test_a_new_task_travels_whole():
    task = travelled(fresh())
    assert (str(task.id), task.header.attempt, task.header.hop) == ("1-17-2", 3, 0)
    assert (task.seed, task.label, task.started) == (2**63 + 1, "row-17", 12.5)
    assert task.input == ROW
    assert task.turns == ()
    assert task.last is None
    assert (task.next_role, task.end) == ("", None)


@pytest.mark.parametrize("row", [{}, [], "text", 3, None, {"long": "x" * 100_000}])
def test_any_json_value_is_a_row(row: object):
    assert travelled(new_task(Header(TaskId(0, 0, 0)), row, seed=1)).input == row


def test_turns_are_appended_and_a_step_is_one_hop():
    before = fresh()
    after = before.with_turns(said("a", "one"), said("b", "two", {"score": 1}))
    assert [turn.agent for turn in travelled(after).turns] == ["a", "b"]
    assert after.header == Header(TaskId(1, 17, 2), 3, 1)
    assert (before.turns, before.header.hop) == ((), 0), "the earlier version is as it was"


def test_history_is_encoded_once():
    task = travelled(fresh().with_turns(said("a", "one")))
    after = task.with_turns(said("b", "two"))
    assert bytes(after.raw_turns[0]) == bytes(task.raw_turns[0])
    assert bytes(after.raw_input) == bytes(task.raw_input)


def test_reading_before_a_step_or_after_it_is_the_same():
    turns = [said("a", "one", 1), said("b", "two", 2), said("a", "three", 3)]
    read, unread = travelled(fresh()), travelled(fresh())
    for turn in turns:
        assert read.with_turns(turn).turns == (*read.turns, turn)
        read, unread = read.with_turns(turn), travelled(unread.with_turns(turn))
    assert read.turns == unread.turns == tuple(turns)
    assert read.last == unread.last == turns[-1]
    assert read == unread


def test_the_history_of_one_role():
    task = fresh().with_turns(said("a", "one", 1), said("b", "two", 2)).with_turns(said("a", "three", 3))
    assert [turn.text for turn in task.by("a")] == ["one", "three"]
    assert task.by("c") == ()
    assert (task.value("a"), task.value("b"), task.value("c"), task.value("c", 0)) == (3, 2, None, 0)


def test_last_is_the_same_with_and_without_the_rest():
    task = travelled(fresh().with_turns(said("a", "one")).with_turns(said("b", "two")))
    alone = task.last
    assert task.turns[-1] == alone == task.last


def test_a_task_goes_to_a_role_or_ends():
    task = fresh().with_turns(said("a", "one")).with_next("b")
    assert (travelled(task).next_role, travelled(task).end) == ("b", None)
    end = End("filtered", "low_score", {"score": 0.1}, "too short")
    ended = travelled(task.with_next(end))
    assert (ended.next_role, ended.end) == ("", end)
    assert ended.with_next("c").end is None


def test_a_turn_that_ends_the_task_keeps_its_end():
    turn = Turn("a", end=End("failed", "agent_error", detail="KeyError: 'x'"))
    assert travelled(fresh().with_turns(turn)).last == turn


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (None, ""),
        ({"role": "user", "content": "hello"}, "hello"),
        ({"role": "assistant", "content": None}, ""),
        ({"role": "user", "content": [{"type": "text", "text": "part"}]}, ""),
    ],
)
def test_the_text_of_a_turn(message: dict[str, object] | None, text: str):
    assert Turn("a", message).text == text


def test_of_two_copies_the_later_attempt_is_newer_then_the_later_hop():
    task = TaskId(0, 0, 0)
    ages = [Header(task, 1, 0).age, Header(task, 0, 9).age, Header(task, 1, 1).age]
    assert max(ages) == (1, 1)
    assert ages[0] > ages[1]


def test_usage_adds_up():
    assert Usage(1, 2, 3, 4) + Usage(10, 20, 30, 40) == Usage(11, 22, 33, 44)


def test_tasks_do_not_share_their_lists():
    assert fresh().raw_turns is not fresh().raw_turns


def test_a_task_is_not_changed_by_accident():
    with pytest.raises(AttributeError):
        fresh().seed = 1  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("fields", [[SCHEMA_VERSION + 1, "unheard of"], [0]])
def test_another_schema_version_is_named(fields: list[object]):
    expected = f"task of schema version {fields[0]}, but this release reads version {SCHEMA_VERSION}"
    with pytest.raises(CodecError, match=expected):
        decode(msgspec.msgpack.encode(fields))


def test_another_version_of_the_same_shape_is_refused_too():
    with pytest.raises(CodecError, match=f"schema version {SCHEMA_VERSION + 1}"):
        decode(encode(fresh(version=SCHEMA_VERSION + 1)))


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"not a task", msgspec.msgpack.encode({"a": 1}), encode(fresh())[:-3]]
)
def test_what_is_no_task_is_refused(data: bytes):
    with pytest.raises(CodecError, match="not an encoded task"):
        decode(data)
