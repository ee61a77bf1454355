"""Write the records of a training format as JSON Lines, one record for a row."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import orjson

from peerloom.options import Options
from peerloom.sink.export.conversation import Conversation, SkippedRow, read_conversations
from peerloom.sink.export.exporter import CommittedRows


@dataclass(frozen=True)
class RecordsExporter(Options):
    """Base of the training formats; `records` yields the lines of the file.

    `assistant` is the role whose conversation is written, by default that of the row's `messages`; each of
    several, separated by commas, has a record.
    """

    section: ClassVar[str] = ""
    suffix: ClassVar[str]
    assistant: str | None = None

    def write(self, rows: CommittedRows, target: Path) -> list[str]:
        """Write the records to a file, and count them."""
        count = 0
        with target.open("wb") as file:
            for record in self.records(rows):
                file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
                count += 1
        rows.records = count
        return []

    def records(self, rows: CommittedRows) -> Iterator[dict[str, Any]]:
        """Yield the records of each row that has a conversation; count the others as skipped."""
        for row, conversation in read_conversations(rows, self.assistant):
            try:
                yield from self.records_of(row, conversation)
            except SkippedRow as reason:
                rows.skipped[str(reason)] += 1

    def records_of(self, row: dict[str, Any], conversation: Conversation) -> Iterable[dict[str, Any]]:
        """Return the records of a row, by default that of `record`.

        Raises:
            SkippedRow: if the format has none for it.
        """
        return [self.record(row, conversation)]

    def record(self, row: dict[str, Any], conversation: Conversation) -> dict[str, Any]:
        """Return the record of a row.

        Raises:
            SkippedRow: if the format has none for it.
        """
        raise NotImplementedError
