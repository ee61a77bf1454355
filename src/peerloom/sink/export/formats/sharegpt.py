"""Write rows in the ShareGPT form, which LLaMA-Factory, Axolotl, and others read."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

import orjson

from peerloom.sink.export.conversation import Conversation, Message
from peerloom.sink.export.records import RecordsExporter
from peerloom.sink.export.templates import arguments


@dataclass(frozen=True)
class ShareGPTExporter(RecordsExporter):
    """`{"conversations": [{"from", "value"}]}`, with `system`, and `tools` as JSON text, where there are any.

    A message with tool calls becomes one `function_call`; its text, for which the form has no place, is left
    out. Several calls, and several results, are a JSON list. An assistant message that is not to be learned
    has `"train": false`, which Axolotl reads with `message_field_training: train`.
    """

    suffix: ClassVar[str] = ".sharegpt.jsonl"

    def record(self, row: dict[str, Any], conversation: Conversation) -> dict[str, Any]:
        """Return the record of a row."""
        systems = [_text(each) for each in conversation.messages if each["role"] == "system"]
        record: dict[str, Any] = {"conversations": list(_convert(conversation))}
        if systems:
            record["system"] = "\n\n".join(systems)
        if conversation.tools:
            record["tools"] = _json(conversation.tools)
        return record


def _convert(conversation: Conversation) -> Iterator[dict[str, Any]]:
    messages = enumerate(conversation.messages)
    for role, group in groupby(messages, lambda each: each[1]["role"]):
        if role == "tool":
            yield {"from": "observation", "value": _one_or_list([_text(message) for _, message in group])}
        elif role == "assistant":
            for number, message in group:
                mask = {"train": False} if number in conversation.untrained else {}
                yield {**_answer(message), **mask}
        elif role != "system":
            yield from ({"from": "human", "value": _text(message)} for _, message in group)


def _answer(message: Message) -> dict[str, Any]:
    calls = message.get("tool_calls")
    if not calls:
        return {"from": "gpt", "value": _text(message)}
    values = [{"name": call["function"]["name"], "arguments": arguments(call)} for call in calls]
    return {"from": "function_call", "value": _json(values[0] if len(values) == 1 else values)}


def _one_or_list(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else _json(texts)


def _text(message: Message) -> str:
    content: Any = message.get("content") or ""
    return content if isinstance(content, str) else _json(content)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


EXPORTER = ShareGPTExporter
