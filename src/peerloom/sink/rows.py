"""Render finished tasks as rows: the JSON line, and the metadata that the sink needs.

A peer renders a row once, when the task ends; the sink writes its bytes and never parses them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import orjson

from peerloom.errors import CodecError
from peerloom.sink.calls.stored import call_objects, restore_calls, usage_object
from peerloom.sink.totals import AgentTally
from peerloom.stored import to_stored
from peerloom.task import FAILED, End, Execution, Task, TaskId, Turn, Usage


class Row(msgspec.Struct, frozen=True, array_like=True):
    """One finished task on its way to disk.

    `line` is the JSON object without a newline; `outcome` decides which file it is written to; `tally` holds
    the totals of each role.
    """

    id: TaskId
    outcome: str
    reason: str
    line: bytes
    tally: dict[str, AgentTally]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Row)
_no_usage = Turn("").usage


def encode(row: Row) -> bytes:
    """Return the row as MessagePack."""
    return _encoder.encode(row)


def decode(data: bytes) -> Row:
    """Return the row that `encode` wrote."""
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise CodecError(f"not an encoded row: {error}") from error


def render(
    task: Task,
    turns: Sequence[Turn],
    conversations: Mapping[str, list[dict[str, Any]]],
    tools: Sequence[dict[str, Any]],
    provenance: dict[str, Any],
    *,
    finished: float,
    full_requests: bool = False,
    programs: Sequence[str] = (),
) -> Row:
    """Return the row of a task that has ended.

    A task whose values cannot be written as JSON gets a failed row with reason `not_json` and without those
    values.

    Args:
        task: the finished task.
        turns: its turns.
        conversations: the conversation of each role that speaks as the assistant; the first one becomes the
            row's `messages`.
        tools: the tools that were offered to models.
        provenance: the origin of the row (recipe, versions, ...); the task's label and attempt are added.
        finished: the Unix time at which the task ended.
        full_requests: write the requests in full.
        programs: the version of the program that made each turn, or an empty text; none if all are the same.

    Raises:
        ValueError: if the task has not ended.
    """
    end = task.end
    if end is None:
        raise ValueError(f"task {task.id} has not ended, so it has no row yet")
    tally = _tally(turns)
    frame = _frame(task, tally, provenance, finished)
    try:
        row = frame | _content(task, turns, end, conversations, tools)
        for item, version in zip(row["turns"], programs, strict=False):
            if version:
                item["program"] = version
        if full_requests:
            restore_calls(row)
        line = orjson.dumps(to_stored(row))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        end = End(FAILED, "not_json", detail=f"the task's values cannot be written as JSON: {error}")
        row = {**frame, "outcome": end.outcome, "reason": end.reason, "detail": end.detail}
        line = orjson.dumps(to_stored(row))
    return Row(task.id, end.outcome, end.reason, line, tally)


def tally_of(row: dict[str, Any]) -> dict[str, AgentTally]:
    """Return the totals of each role in a written row."""
    tally: dict[str, AgentTally] = {}
    for turn in row["turns"]:
        role = tally.setdefault(turn["agent"], AgentTally())
        role.add(AgentTally(turns=1, seconds=turn.get("seconds", 0.0), **turn.get("usage", {})))
    return tally


def _content(
    task: Task,
    turns: Sequence[Turn],
    end: End,
    conversations: Mapping[str, list[dict[str, Any]]],
    tools: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    content: dict[str, Any] = {
        "outcome": end.outcome,
        "reason": end.reason,
        "input": task.decode_input(),
        "messages": next(iter(conversations.values()), ()),
        "turns": [_turn_object(turn) for turn in turns],
        "result": end.result,
    }
    if len(conversations) > 1:
        content["conversations"] = conversations
    if tools:
        content["tools"] = tools
    if end.detail:
        content["detail"] = end.detail
    if end.error is not None:
        content["error"] = msgspec.structs.asdict(end.error)
    return content


def _frame(
    task: Task, tally: dict[str, AgentTally], provenance: dict[str, Any], finished: float
) -> dict[str, Any]:
    """Return a row with all keys in order, and values for those that do not depend on agents or input."""
    header = task.header
    used = AgentTally()
    for role in tally.values():
        used.add(role)
    return {
        "id": str(header.id),
        "trial": header.id.trial,
        "seed": task.seed,
        "outcome": "",
        "reason": "",
        "input": None,
        "messages": [],
        "turns": [],
        "result": None,
        "usage": usage_object(Usage(used.prompt, used.completion, used.cached, used.calls, used.usd)),
        "timing": {
            "started": task.started,
            "finished": finished,
            "seconds": round(finished - task.started, 6),
            "hops": header.hop,
        },
        "provenance": _origin(task, provenance),
    }


def _origin(task: Task, provenance: dict[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = {"label": task.label, "attempt": task.header.attempt}
    if task.parent:
        own["parents"] = [task.parent]
    return provenance | own


def _turn_object(turn: Turn) -> dict[str, Any]:
    item = _said(turn)
    if turn.started:
        item["started"] = turn.started
    if turn.seconds:
        item["seconds"] = turn.seconds
    if turn.execution is not None:
        item["execution"] = _execution_object(turn.execution)
    if turn.extras is not None:
        item |= _filled_in(turn.extras)
    if turn.calls:
        item["calls"] = call_objects(turn)
    return item


def _execution_object(execution: Execution) -> dict[str, Any]:
    item: dict[str, Any] = {"member": execution.member}
    if execution.waited:
        item["waited"] = execution.waited
    if execution.tries:
        item["tries"] = execution.tries
    if execution.replayed:
        item["replayed"] = execution.replayed
    return item


def _said(turn: Turn) -> dict[str, Any]:
    item: dict[str, Any] = {"agent": turn.agent}
    if turn.message is not None:
        item["message"] = turn.message
    if turn.value is not None:
        item["value"] = turn.value
    usage = turn.usage
    if usage is not _no_usage and usage != _no_usage:
        item["usage"] = usage_object(usage)
    if turn.model:
        item["model"] = turn.model
    if turn.finish_reason:
        item["finish_reason"] = turn.finish_reason
    return item


def _filled_in(part: msgspec.Struct) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(part).items() if value}


def _tally(turns: Sequence[Turn]) -> dict[str, AgentTally]:
    tally: dict[str, AgentTally] = {}
    for turn in turns:
        role = tally.get(turn.agent)
        if role is None:
            role = tally[turn.agent] = AgentTally()
        role.count(turn.usage, turn.seconds)
    return tally
