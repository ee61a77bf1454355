"""A finished task as a row: the JSON line that is kept, and what the sink needs to know of it.

A peer renders a row once, when the task ends; the sink copies its bytes and never parses them.
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

    `line` is the JSON object without a newline; `outcome` decides where it goes; `tally` is what each
    role did.
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
    """The row as MessagePack."""
    return _encoder.encode(row)


def decode(data: bytes) -> Row:
    """The row in `data`, made by `encode`.

    Raises:
        CodecError: if `data` is no encoded row.
    """
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise CodecError(f"not an encoded row: {error}") from error


def render(
    task: Task, opening: Sequence[dict[str, Any]], provenance: dict[str, Any], *, finished: float
) -> Row:
    """The row of a task that has ended.

    A task whose values cannot be written as JSON gets a row all the same: failed, reason `not_json`,
    without those values.

    Args:
        task: the finished task.
        opening: the messages that precede those of the turns.
        provenance: what made the row (recipe, versions, ...); the task's label and attempt are added.
        finished: when the task ended, in Unix seconds.

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
    """What each role did for a row, from the row as it is kept."""
    tally: dict[str, AgentTally] = {}
    for turn in row["turns"]:
        mine = tally.setdefault(turn["agent"], AgentTally())
        mine.add(AgentTally(turns=1, seconds=turn.get("seconds", 0.0), **turn.get("usage", {})))
    return tally


def _as_object(
    task: Task, turns: tuple[Turn, ...], end: End, opening: Sequence[dict[str, Any]], frame: dict[str, Any]
) -> dict[str, Any]:
    spoken = [turn.message for turn in turns if turn.message is not None]
    row = {
        **frame,
        "outcome": end.outcome,
        "reason": end.reason,
        "input": task.decode_input(),
        "messages": [*opening, *spoken],
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
    """All keys of a row in their order, filled in as far as agents and input had no hand in them."""
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
        item["usd"] = float(f"{usd:.12g}")  # without the noise of a sum's last digits
    return item


def _tally(turns: tuple[Turn, ...]) -> dict[str, AgentTally]:
    tally: dict[str, AgentTally] = {}
    for turn in turns:
        mine = tally.get(turn.agent)
        if mine is None:
            mine = tally[turn.agent] = AgentTally()
        mine.turns += 1
        mine.seconds += turn.seconds
        usage = turn.usage
        if usage is not _no_usage and usage != _no_usage:
            mine.calls += usage.calls
            mine.prompt += usage.prompt
            mine.completion += usage.completion
            mine.cached += usage.cached
            mine.usd += usage.usd
    return tally
