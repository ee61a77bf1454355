"""Write rows for supervised fine-tuning, as TRL reads them."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from peerloom.sink.export.conversation import Conversation, SkippedRow, with_objects
from peerloom.sink.export.records import RecordsExporter


@dataclass(frozen=True)
class SftExporter(RecordsExporter):
    """`{"messages": [...]}`, or a `prompt` and the last message as its `completion`; `tools` where offered.

    The arguments of tool calls are objects, as chat templates expect.
    """

    suffix: ClassVar[str] = ".sft.jsonl"
    style: Literal["messages", "prompt-completion"] = "messages"

    def record(self, row: dict[str, Any], conversation: Conversation) -> dict[str, Any]:
        """Return the record of a row."""
        messages = with_objects(conversation.messages)
        record = conversation.to_record(messages)
        if self.style == "prompt-completion":
            if len(messages) == 1:
                raise SkippedRow("no message before the answer")
            del record["messages"]
            record = {"prompt": messages[:-1], "completion": messages[-1:], **record}
        return record


EXPORTER = SftExporter
