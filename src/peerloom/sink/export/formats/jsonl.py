"""Write rows as JSON Lines, copied line by line."""

from pathlib import Path

from peerloom.sink.export.exporter import CommittedRows


class JsonlExporter:
    """JSON Lines, as in the run directory."""

    suffix = ".jsonl"

    def write(self, rows: CommittedRows, target: Path) -> list[str]:
        """Write the lines to a file."""
        with target.open("wb") as file:
            file.writelines(rows.lines())
        return []


EXPORTER = JsonlExporter
