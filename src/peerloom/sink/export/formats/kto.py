"""Write answers with a label, good or bad, as TRL's KTO trainer reads them."""

from dataclasses import dataclass
from typing import Any, ClassVar

from peerloom.sink.export.conversation import Conversation, SkippedRow, with_objects
from peerloom.sink.export.groups import score_of
from peerloom.sink.export.records import RecordsExporter
from peerloom.sink.export.where import parse_path


@dataclass(frozen=True)
class KtoExporter(RecordsExporter):
    """`{"prompt", "completion", "label"}`, where the completion is the last message.

    The label is true if the number at `score` is at least `threshold`; true counts as 1, and false as 0.
    """

    suffix: ClassVar[str] = ".kto.jsonl"
    score: str = "result.score"
    threshold: float = 1.0

    def record(self, row: dict[str, Any], conversation: Conversation) -> dict[str, Any]:
        """Return the record of a row."""
        label = score_of(row, self.score, parse_path(self.score)) >= self.threshold
        *prompt, completion = with_objects(conversation.messages)
        if not prompt:
            raise SkippedRow("no message before the answer")
        record = {"prompt": prompt, "completion": [completion], "label": label}
        return record | ({"tools": conversation.tools} if conversation.tools else {})


EXPORTER = KtoExporter
