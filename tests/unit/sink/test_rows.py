from typing import Any

import orjson
import pytest

from peerloom.errors import CodecError
from peerloom.sink import rows
from peerloom.sink.rows import Row, render
from peerloom.sink.totals import AgentTally, Totals
from peerloom.stored import from_stored
from peerloom.task import End, Header, Task, TaskId, Turn, Usage, decode, encode, new_task

KEYS = ["id", "trial", "seed", "outcome", "reason", "input", "messages", "turns", "result", "usage", "timing"]


def finished_task(*turns: Turn, end: End | None = None, row: Any = None) -> Task:
    row = {"question": "why?"} if row is None else row
    task = new_task(Header(TaskId(2, 17, 1), attempt=3), row, seed=99, label="q17", started=100.0)
    for turn in turns:
        task = task.with_turns(turn)
    return task.with_next(end or End(result={"agreed": True}))


def bare(task: Task, *, finished: float) -> Row:
    return render(task, task.decode_turns(), {}, [], {}, finished=finished)


def rendered(task: Task) -> dict[str, Any]:
    turns = task.decode_turns()
    messages = [{"role": "user", "content": "why?"}, *(turn.message for turn in turns if turn.message)]
    row = render(task, turns, {"teacher": messages}, [], {"recipe": "coral"}, finished=102.5)
    assert b"\n" not in row.line
    return from_stored(orjson.loads(row.line))


def teacher_and_extractor() -> tuple[Turn, Turn]:
    said = {"role": "assistant", "content": "because"}
    usage = Usage(prompt=50, completion=20, cached=10, calls=1)
    return (
        Turn("teacher", said, usage=usage, model="m", finish_reason="stop", started=100.5, seconds=1.5),
        Turn("extractor", value="A", usage=Usage(30, 1, 30, 2), seconds=0.25),
    )


def test_a_row_has_exactly_these_keys():
    row = rendered(finished_task(*teacher_and_extractor()))
    assert list(row) == [*KEYS, "provenance"]
    assert row["id"] == "2-17-1"
    assert (row["trial"], row["seed"], row["outcome"], row["reason"]) == (1, 99, "completed", "")
    assert row["input"] == {"question": "why?"}
    assert row["messages"] == [
        {"role": "user", "content": "why?"},
        {"role": "assistant", "content": "because"},
    ]
    assert row["result"] == {"agreed": True}
    assert row["usage"] == {"prompt": 80, "completion": 21, "cached": 40, "calls": 3}
    assert row["timing"] == {"started": 100.0, "finished": 102.5, "seconds": 2.5, "hops": 2}
    assert row["provenance"] == {"recipe": "coral", "label": "q17", "attempt": 3}


def test_turns_leave_out_what_is_empty():
    first, second, third = rendered(finished_task(*teacher_and_extractor(), Turn("x", value=False)))["turns"]
    assert first == {
        "agent": "teacher",
        "message": {"role": "assistant", "content": "because"},
        "usage": {"prompt": 50, "completion": 20, "cached": 10, "calls": 1},
        "model": "m",
        "finish_reason": "stop",
        "started": 100.5,
        "seconds": 1.5,
    }
    assert second == {
        "agent": "extractor",
        "value": "A",
        "usage": {"prompt": 30, "completion": 1, "cached": 30, "calls": 2},
        "seconds": 0.25,
    }
    assert third == {"agent": "x", "value": False}


def test_a_task_that_came_over_the_wire_gives_the_same_row():
    task = finished_task(*teacher_and_extractor(), Turn("x", value={"pair": (1, 2)}))
    again = decode(encode(task))
    assert bare(task, finished=1.0) == bare(again, finished=1.0)


def test_detail_is_there_if_there_is_any():
    row = rendered(finished_task(end=End("failed", "llm", detail="HTTP 500")))
    assert list(row) == [*KEYS, "provenance", "detail"]
    assert (row["outcome"], row["reason"], row["detail"], row["result"]) == (
        "failed",
        "llm",
        "HTTP 500",
        None,
    )


def test_the_tally_is_by_role():
    first, second = teacher_and_extractor()
    row = bare(finished_task(first, second, first), finished=1.0)
    assert (row.id, row.outcome, row.reason) == (TaskId(2, 17, 1), "completed", "")
    assert row.tally == {
        "teacher": AgentTally(turns=2, calls=2, prompt=100, completion=40, cached=20, seconds=3.0),
        "extractor": AgentTally(turns=1, calls=2, prompt=30, completion=1, cached=30, seconds=0.25),
    }


def nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", [{1: "one"}, b"bytes", nested(400)])
def test_values_that_are_not_json_are_not_changed(value: Any):
    row = rendered(finished_task(Turn("x", value=value)))
    assert (row["outcome"], row["reason"]) == ("failed", "not_json")


def test_a_value_that_cannot_be_written_is_a_recorded_failure():
    task = finished_task(Turn("x", value={(1, 2): "tuple as key"}, usage=Usage(calls=1)))
    row = rendered(task)
    assert list(row) == [*KEYS, "provenance", "detail"]
    assert (row["id"], row["outcome"], row["reason"]) == ("2-17-1", "failed", "not_json")
    assert row["detail"].startswith("the task's values cannot be written as JSON")
    assert (row["turns"], row["result"], row["usage"]["calls"]) == ([], None, 1)
    assert bare(task, finished=1.0).outcome == "failed"


def test_a_task_that_has_not_ended_has_no_row():
    task = new_task(Header(TaskId(0, 0, 0)), {}, seed=0)
    with pytest.raises(ValueError, match="task 0-0-0 has not ended"):
        bare(task, finished=1.0)


def test_rows_travel_as_messagepack():
    row = bare(finished_task(*teacher_and_extractor()), finished=1.0)
    assert rows.decode(rows.encode(row)) == row
    for damaged in (b"", b"\x01", rows.encode(row)[:-1]):
        with pytest.raises(CodecError, match="not an encoded row"):
            rows.decode(damaged)


def test_totals_add_up():
    totals, other = Totals(), Totals()
    one = Row(TaskId(0, 0, 0), "completed", "", b"{}", {"a": AgentTally(turns=1, prompt=5)})
    two = Row(TaskId(0, 1, 0), "failed", "llm", b"{}", {"a": AgentTally(turns=2), "b": AgentTally(turns=1)})
    totals.add_row(one.outcome, one.reason, one.tally)
    for _ in range(2):
        other.add_row(two.outcome, two.reason, two.tally)
    totals.add(other)
    assert totals == Totals(
        3,
        {"completed": 1, "failed": 2},
        {"llm": 2},
        {"a": AgentTally(turns=5, prompt=5), "b": AgentTally(turns=2)},
    )
    assert one.tally == {"a": AgentTally(turns=1, prompt=5)}
    assert other.admitted == 2
