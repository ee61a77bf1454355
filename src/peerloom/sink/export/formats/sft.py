"""Write rows for supervised fine-tuning, as TRL reads them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from peerloom.errors import ConfigError
from peerloom.sink.export.conversation import Conversation, SkippedRow
from peerloom.sink.export.records import RecordsExporter
from peerloom.sink.export.templates import for_templates

MASKED = (
    "an assistant message that is not to be learned, such as an example, which `messages` cannot express: "
    "use style=prompt-completion"
)


@dataclass(frozen=True)
class SftExporter(RecordsExporter):
    """`{"messages": [...]}`, or a `prompt` and its `completion`; `tools` where offered.

    The arguments of tool calls are objects, as chat templates expect.

    Attributes:
        style: `messages`, of which a trainer learns all assistant messages; or `prompt-completion`, of which
            it learns the completion only.
        train: with `prompt-completion`, the last message is the completion, or `all` makes a record of each
            assistant message that is to be learned.
    """

    suffix: ClassVar[str] = ".sft.jsonl"
    style: Literal["messages", "prompt-completion"] = "messages"
    train: Literal["all", "last"] | None = None

    def __post_init__(self) -> None:
        if self.style == "messages" and self.train == "last":
            raise ConfigError("train=last needs style=prompt-completion: `messages` has no mask")

    def records_of(self, row: dict[str, Any], conversation: Conversation) -> Iterator[dict[str, Any]]:
        """Yield the record of a row, or those of its messages."""
        ready = for_templates(conversation)
        if self.style == "messages":
            if conversation.untrained:
                raise SkippedRow(MASKED)
            yield ready.to_record()
            return
        trained = conversation.trained()
        for end in trained if self.train == "all" else trained[-1:]:
            if not end:
                raise SkippedRow("no message before the answer")
            record: dict[str, Any] = {"prompt": ready.messages[:end], "completion": [ready.messages[end]]}
            yield record | ({"tools": ready.tools} if ready.tools else {})


EXPORTER = SftExporter
