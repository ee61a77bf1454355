"""Read JSON Lines files, plain or compressed."""

from collections.abc import Iterator, Sequence

from peerloom.source.format import FileFormat
from peerloom.source.parts.json_lines import JsonlPart
from peerloom.source.storage.files import SourceFile, maybe_compressed


class Jsonl(FileFormat):
    """JSON Lines, plain or compressed."""

    suffixes = maybe_compressed(".jsonl", ".ndjson")

    def file_parts(self, files: Sequence[SourceFile], pattern: str) -> "Iterator[JsonlPart]":
        """Return one part for each file."""
        return map(JsonlPart, files)


FORMAT = Jsonl
