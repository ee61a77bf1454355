"""Write answers with a label, good or bad, as TRL's KTO trainer reads them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from peerloom.sink.export.exporter import CommittedRows
from peerloom.sink.export.groups import ScoredExporter


@dataclass(frozen=True)
class KtoExporter(ScoredExporter):
    """`{"prompt", "completion", "label"}`, where the completion is the last message.

    The label is true if the score is at least `threshold`; true counts as 1, and false as 0.
    """

    suffix: ClassVar[str] = ".kto.jsonl"
    threshold: float = 1.0

    def records(self, rows: CommittedRows) -> Iterator[dict[str, Any]]:
        """Yield the record of each answer; count those without a prompt as skipped."""
        for answer in self.answers(rows):
            *prompt, completion = answer.messages
            if not prompt:
                rows.skipped["no message before the answer"] += 1
                continue
            label = answer.score >= self.threshold
            record = {"prompt": prompt, "completion": [completion], "label": label}
            yield record | ({"tools": answer.tools} if answer.tools else {})


EXPORTER = KtoExporter
