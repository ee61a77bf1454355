"""Write rows as trajectories in the Agent Trajectory Interchange Format (ATIF), one a line."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from mimetypes import guess_type
from typing import Any, ClassVar, Literal

from peerloom.sink.export.conversation import (
    Conversation,
    Message,
    Row,
    SkippedRow,
    reply_message,
    speakers,
    turns_of,
)
from peerloom.sink.export.records import RecordsExporter
from peerloom.sink.export.templates import arguments

_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")


@dataclass(frozen=True)
class AtifExporter(RecordsExporter):
    """A trajectory of the assistant for each row; the other roles are its sub-trajectories.

    The step after which another role first acted refers to its trajectory. Messages that are repeated in a
    later request, and an assistant's that no turn has made, such as an example, are marked as copied context.
    """

    suffix: ClassVar[str] = ".atif.jsonl"
    version: Literal["1.7", "1.8"] = "1.8"

    def record(self, row: Row, conversation: Conversation) -> dict[str, Any]:
        """Return the trajectory of a row."""
        spoken = {conversation.role} if conversation.role else speakers(row)
        turns = [turn for turn in row["turns"] if turn["agent"] in spoken]
        role = conversation.role or (turns[-1]["agent"] if turns else "assistant")
        id = f"{row['id']}/{role}" if "," in (self.assistant or "") else row["id"]
        steps = _Steps(turns)
        steps.add(conversation.messages)
        trajectory = self._trajectory(row, role, id, conversation.tools, steps.steps)
        subs: list[dict[str, Any]] = []
        for other in dict.fromkeys(turn["agent"] for turn in row["turns"] if turn["agent"] not in spoken):
            sub = self._other(row, other)
            if sub["steps"]:
                subs.append(sub)
                steps.refer(row["turns"], other, sub["trajectory_id"])
        return trajectory | ({"subagent_trajectories": subs} if subs else {})

    def _other(self, row: Row, role: str) -> dict[str, Any]:
        """Return the trajectory of another role, from its recorded calls, or else its messages."""
        steps = _Steps([])
        tools: list[Any] = []
        for turn in turns_of(row, role):
            steps.turns = [turn]
            calls = [call for call in turn.get("calls") or () if "reply" in call]
            if calls:
                request = calls[-1]["request"]
                tools = request.get("tools") or tools
                steps.add([*request["messages"], reply_message(calls[-1]["reply"])])
            else:
                steps.add([{"role": "assistant", "content": _spoken(turn)}])
        return self._trajectory(row, role, f"{row['id']}/{role}", tools, steps.steps)

    def _trajectory(
        self, row: Row, role: str, id: str, tools: Sequence[Any], steps: list[dict[str, Any]]
    ) -> dict[str, Any]:
        provenance: Row = row.get("provenance") or {}
        agent = {"name": role, "version": str(provenance.get("peerloom", ""))}
        trajectory: dict[str, Any] = {
            "schema_version": f"ATIF-v{self.version}",
            "session_id": f"{provenance.get('run', '')}/{row['id']}",
            "trajectory_id": id,
            "agent": agent | ({"tool_definitions": list(tools)} if tools else {}),
            "steps": steps,
            "final_metrics": _totals(steps),
        }
        return trajectory


class _Steps:
    """The steps of a trajectory; `turns` are those that may have made its next assistant messages."""

    def __init__(self, turns: Sequence[Row]) -> None:
        self.turns = list(turns)
        self.steps: list[dict[str, Any]] = []
        self._made: list[tuple[Row, dict[str, Any]]] = []
        self._seen: list[Message] = []

    def add(self, messages: Sequence[Message]) -> None:
        """Append messages, without those with which all earlier ones begin; repeated ones are marked."""
        pairs = zip(self._seen, messages, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        start = same if same == len(self._seen) else 0
        self._seen = list(messages)
        for number, message in enumerate(messages[start:], start):
            self._add(message)
            if number < same:
                self.steps[-1]["is_copied_context"] = True

    def refer(self, turns: Sequence[Row], role: str, id: str) -> None:
        """Add the reference to the trajectory of another role where that first acted.

        It is at the last step of this trajectory before, or else at the first one.
        """
        agents = [step for step in self.steps if step["source"] == "agent"]
        step = self._made[0][1] if self._made else agents[0]
        for turn in takewhile(lambda turn: turn["agent"] != role, turns):
            step = next((made for maker, made in self._made if maker is turn), step)
        _observe(step, {"subagent_trajectory_ref": [{"trajectory_id": id}]})

    def _add(self, message: Message) -> None:
        role, content = message["role"], _content(message)
        if role == "tool":
            id = message.get("tool_call_id")
            calls = self.steps[-1].get("tool_calls", ()) if self.steps else ()
            is_result = any(call["tool_call_id"] == id for call in calls)
            step = self.steps[-1] if is_result else self._new("system", "")
            _observe(step, {"source_call_id": id, "content": content})
        elif role == "assistant":
            self._answer(message, content)
        else:
            self._new("user" if role == "user" else "system", content)

    def _new(self, source: str, content: Any) -> dict[str, Any]:
        step: dict[str, Any] = {"step_id": len(self.steps) + 1, "source": source, "message": content}
        self.steps.append(step)
        return step

    def _answer(self, message: Message, content: Any) -> None:
        step = self._new("agent", content)
        if message.get("tool_calls"):
            step["tool_calls"] = [
                {
                    "tool_call_id": call["id"],
                    "function_name": call["function"]["name"],
                    "arguments": arguments(call),
                }
                for call in message["tool_calls"]
            ]
        turn = next((each for each in self.turns if _made(each, message)), None)
        if turn is None:
            step["is_copied_context"] = True
            return
        self.turns.remove(turn)
        self._made.append((turn, step))
        usage: Row = turn.get("usage") or {}
        step["llm_call_count"] = usage.get("calls", 0)
        if "started" in turn:
            step["timestamp"] = datetime.fromtimestamp(turn["started"], UTC).isoformat()
        if step["llm_call_count"]:
            step |= _of_model(turn, usage)


def _observe(step: dict[str, Any], result: dict[str, Any]) -> None:
    step.setdefault("observation", {"results": []})["results"].append(result)


def _content(message: Message) -> str | list[dict[str, Any]]:
    """Return the content of a message: text, or parts.

    Raises:
        SkippedRow: if ATIF has no such part.
    """
    content = message.get("content") or ""
    return content if isinstance(content, str) else [_part(part) for part in content]


def _part(part: Row) -> dict[str, Any]:
    if part.get("type") == "text":
        return {"type": "text", "text": part.get("text") or ""}
    image: Row = part.get("image_url") or {}
    media_type, _ = guess_type(str(image.get("url", "")))
    if media_type not in _IMAGES:
        raise SkippedRow("a message with a part that ATIF has no place for")
    return {"type": "image", "source": {"media_type": media_type, "path": image["url"]}}


def _made(turn: Row, message: Message) -> bool:
    made = turn.get("message")
    if made is None or made["role"] != "assistant":
        return True  # the message is that of its recorded call, or its value
    same = (made.get("content") or "") == (message.get("content") or "")
    return same and (made.get("tool_calls") or []) == (message.get("tool_calls") or [])


def _spoken(turn: Row) -> str:
    message: Message = turn.get("message") or {}
    return message.get("content") or str(turn.get("value", ""))


def _of_model(turn: Row, usage: Row) -> dict[str, Any]:
    names = {"prompt": "prompt_tokens", "completion": "completion_tokens", "cached": "cached_tokens"}
    metrics = {name: usage[key] for key, name in {**names, "usd": "cost_usd"}.items() if key in usage}
    if turn.get("token_ids"):
        metrics["completion_token_ids"] = turn["token_ids"]
    if turn.get("logprobs"):
        metrics["logprobs"] = [token["logprob"] for token in turn["logprobs"]]
    found = {"metrics": metrics, "model_name": turn.get("model"), "reasoning_content": turn.get("reasoning")}
    return {name: value for name, value in found.items() if value}


def _totals(steps: Iterable[dict[str, Any]]) -> dict[str, Any]:
    names = ("prompt_tokens", "completion_tokens", "cached_tokens", "cost_usd")
    steps = list(steps)
    measured = [step["metrics"] for step in steps if "metrics" in step]
    totals = {f"total_{name}": sum(each.get(name, 0) for each in measured) for name in names}
    return {**totals, "total_steps": len(steps)}


EXPORTER = AtifExporter
