"""Write rows as a file for OpenAI's fine-tuning."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from peerloom.sink.export.conversation import Conversation
from peerloom.sink.export.records import RecordsExporter


@dataclass(frozen=True)
class OpenAIExporter(RecordsExporter):
    """`{"messages": [...]}` with `tools` where offered; the arguments of tool calls are JSON text.

    With `train="last"` the earlier assistant messages have the weight 0, so that only the last is learned.
    """

    suffix: ClassVar[str] = ".openai.jsonl"
    train: Literal["all", "last"] = "all"

    def record(self, row: dict[str, Any], conversation: Conversation) -> dict[str, Any]:
        """Return the record of a row."""
        if self.train == "all":
            return conversation.to_record()
        *earlier, last = conversation.messages
        masked = [{**each, "weight": 0} if each["role"] == "assistant" else each for each in earlier]
        return conversation.to_record([*masked, last])


EXPORTER = OpenAIExporter
