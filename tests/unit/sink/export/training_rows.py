"""Rows as training formats get them: two trials of each of three input rows, one of them with a tool."""

import json
from pathlib import Path
from typing import Any

from peerloom.sink.rows import Row
from peerloom.sink.shard import ShardFiles
from peerloom.stored import to_stored
from peerloom.task import TaskId

TOOL = {
    "type": "function",
    "function": {"name": "add", "description": "Add.", "parameters": {"type": "object", "properties": {}}},
}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": [1]}'}}


def dialogue(number: int, trial: int, score: float | None, **changes: Any) -> dict[str, Any]:
    """A row of a writer whose answer a judge scored."""
    prompt = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": f"Question {number}?"}]
    answer = {"role": "assistant", "content": f"Answer {number}-{trial}"}
    asked = [{"role": "user", "content": f"Rate: {answer['content']}"}]
    judged = {"request": {"messages": asked}, "reply": {"text": f"{score}", "finish_reason": "stop"}}
    return {
        "id": f"0-{number}-{trial}",
        "trial": trial,
        "outcome": "completed",
        "input": {"number": number},
        "messages": [*prompt, answer],
        "turns": [
            {
                "agent": "writer",
                "message": answer,
                "usage": {"prompt": 9, "completion": 3, "cached": 1, "calls": 1, "usd": 0.5},
                "model": "m",
                "started": 1796055193.5,
                "token_ids": [1, 2],
                "logprobs": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1.5}],
                "calls": [{"request": {"messages": prompt}, "reply": {"text": answer["content"]}}],
            },
            {"agent": "judge", "value": score, "usage": {"calls": 1}, "calls": [judged]},
        ],
        "result": {"score": score},
        "provenance": {"run": "r", "peerloom": "0.1.0"},
        **changes,
    }


def tool_dialogue(number: int, trial: int, score: float | None) -> dict[str, Any]:
    """A row whose writer calls a tool before its answer."""
    row = dialogue(number, trial, score)
    *prompt, answer = row["messages"]
    calls = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "3"}
    row["turns"].insert(0, {"agent": "writer", "message": calls, "usage": {"calls": 1}})
    return {**row, "messages": [*prompt, calls, result, answer], "tools": [TOOL]}


def all_rows() -> list[dict[str, Any]]:
    return [
        *(dialogue(0, trial, trial) for trial in range(2)),
        *(dialogue(1, trial, 5 - trial) for trial in range(2)),
        *(tool_dialogue(2, trial, trial * 2.5) for trial in range(2)),
    ]


def commit(run_dir: Path, contents: list[dict[str, Any]]) -> None:
    shard = ShardFiles.take(run_dir, 0, 1)
    shard.commit(
        [
            Row(
                TaskId(*map(int, row["id"].split("-"))),
                row["outcome"],
                "",
                json.dumps(to_stored(row)).encode(),
                {},
            )
            for row in contents
        ]
    )
    shard.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
