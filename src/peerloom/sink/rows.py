"""Render finished tasks as rows: the JSON line, and the metadata that the sink needs.

A peer renders a row once, when the task ends; the sink writes its bytes and never parses them.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import orjson

from peerloom.errors import CodecError
from peerloom.sink.totals import AgentTally
from peerloom.task import FAILED, End, Task, TaskId, Turn, Usage


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
    """Return the row that `encode` wrote.

    Raises:
        CodecError: if `data` is not an encoded row.
    """
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise CodecError(f"not an encoded row: {error}") from error


def render(
    task: Task, opening: Sequence[dict[str, Any]], provenance: dict[str, Any], *, finished: float
) -> Row:
    """Return the row of a task that has ended.

    A task whose values cannot be written as JSON gets a failed row with reason `not_json` and without those
    values.

    Args:
        task: the finished task.
        opening: the messages that precede those of the turns.
        provenance: the origin of the row (recipe, versions, ...); the task's label and attempt are added.
        finished: the Unix time at which the task ended.

    Raises:
        ValueError: if the task has not ended.
    """
    end = task.end
    if end is None:
        raise ValueError(f"task {task.id} has not ended, so it has no row yet")
    turns = task.decode_turns()
    tally = _tally(turns)
    frame = _frame(task, tally, provenance, finished)
    try:
        line = orjson.dumps(_as_object(task, turns, end, opening, frame))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        end = End(FAILED, "not_json", detail=f"the task's values cannot be written as JSON: {error}")
        line = orjson.dumps({**frame, "outcome": end.outcome, "reason": end.reason, "detail": end.detail})
    return Row(task.id, end.outcome, end.reason, line, tally)


def tally_of(row: dict[str, Any]) -> dict[str, AgentTally]:
    """Return the totals of each role in a written row."""
    tally: dict[str, AgentTally] = {}
    for turn in row["turns"]:
        role = tally.setdefault(turn["agent"], AgentTally())
        role.add(AgentTally(turns=1, seconds=turn.get("seconds", 0.0), **turn.get("usage", {})))
    return tally


def _as_object(
    task: Task, turns: tuple[Turn, ...], end: End, opening: Sequence[dict[str, Any]], frame: dict[str, Any]
) -> dict[str, Any]:
    messages = [turn.message for turn in turns if turn.message is not None]
    row = {
        **frame,
        "outcome": end.outcome,
        "reason": end.reason,
        "input": task.decode_input(),
        "messages": [*opening, *messages],
        "turns": [_turn_object(turn) for turn in turns],
        "result": end.result,
    }
    if end.detail:
        row["detail"] = end.detail
    if end.error is not None:
        row["error"] = msgspec.structs.asdict(end.error)
    return row


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
        "usage": _usage_object(Usage(used.prompt, used.completion, used.cached, used.calls, used.usd)),
        "timing": {
            "started": task.started,
            "finished": finished,
            "seconds": round(finished - task.started, 6),
            "hops": header.hop,
        },
        "provenance": {**provenance, "label": task.label, "attempt": header.attempt},
    }


def _turn_object(turn: Turn) -> dict[str, Any]:
    item: dict[str, Any] = {"agent": turn.agent}
    if turn.message is not None:
        item["message"] = turn.message
    if turn.value is not None:
        item["value"] = turn.value
    usage = turn.usage
    if usage is not _no_usage and usage != _no_usage:
        item["usage"] = _usage_object(usage)
    if turn.model:
        item["model"] = turn.model
    if turn.finish_reason:
        item["finish_reason"] = turn.finish_reason
    if turn.started:
        item["started"] = turn.started
    if turn.seconds:
        item["seconds"] = turn.seconds
    if turn.extras is not None:
        item |= {name: value for name, value in msgspec.structs.asdict(turn.extras).items() if value}
    return item


def _usage_object(usage: Usage) -> dict[str, Any]:
    item = msgspec.structs.asdict(usage)
    usd = item.pop("usd")
    if usd:
        item["usd"] = float(f"{usd:.12g}")  # drop the rounding errors of the sum
    return item


def _tally(turns: tuple[Turn, ...]) -> dict[str, AgentTally]:
    tally: dict[str, AgentTally] = {}
    for turn in turns:
        role = tally.get(turn.agent)
        if role is None:
            role = tally[turn.agent] = AgentTally()
        role.turns += 1
        role.seconds += turn.seconds
        usage = turn.usage
        if usage is not _no_usage and usage != _no_usage:
            role.calls += usage.calls
            role.prompt += usage.prompt
            role.completion += usage.completion
            role.cached += usage.cached
            role.usd += usage.usd
    return tally
