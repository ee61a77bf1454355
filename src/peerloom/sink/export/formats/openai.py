"""Write rows as a file for OpenAI's fine-tuning."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from peerloom.sink.export.conversation import Conversation
from peerloom.sink.export.records import RecordsExporter


@dataclass(frozen=True)
class OpenAIExporter(RecordsExporter):
    """`{"messages": [...]}` with `tools` where offered; the arguments of tool calls are JSON text.

    Assistant messages that are not to be learned have the weight 0: examples, and with `train="last"` all but
    the last.
    """

    suffix: ClassVar[str] = ".openai.jsonl"
    train: Literal["all", "last"] = "all"

    def record(self, row: dict[str, Any], conversation: Conversation) -> dict[str, Any]:
        """Return the record of a row."""
        trained = conversation.trained()
        kept = set(trained if self.train == "all" else trained[-1:])
        return conversation.to_record(
            [
                {**message, "weight": 0} if message["role"] == "assistant" and number not in kept else message
                for number, message in enumerate(conversation.messages)
            ]
        )


EXPORTER = OpenAIExporter
