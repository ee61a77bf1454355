"""Define the interface of exporters, and find them by name, entry point, or import path."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec
import orjson

from peerloom.errors import ConfigError
from peerloom.lookup.nearest import did_you_mean
from peerloom.lookup.plugins import Plugins
from peerloom.sink.read import Extent, parse_line, parse_lines, read_blocks

EXPORTERS = Plugins("sink.format", "peerloom.exporters", "peerloom.sink.export.formats", "EXPORTER")


class CommittedRows:
    """The rows to export, which may be read repeatedly.

    Attributes:
        count: the number of rows at the last complete reading.
        records: the number of records in the file, where a record is not a row.
        skipped: the reasons why rows or groups of rows are not in the file, each with their number.
    """

    def __init__(
        self,
        extents: Sequence[Extent],
        on_row: Callable[[], None],
        keep: Callable[[dict[str, Any]], bool] | None = None,
    ) -> None:
        self._extents = extents
        self._on_row = on_row
        self._keep = keep
        self.count = 0
        self.records: int | None = None
        self.skipped: Counter[str] = Counter()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the rows as JSON values.

        Raises:
            RunDirError: if a row is damaged.
        """
        count = 0
        for extent in self._extents:
            for row in parse_lines(extent):
                self._on_row()
                if self._keep is None or self._keep(row):
                    count += 1
                    yield row
        self.count = count

    def lines(self) -> Iterator[bytes]:
        """Yield the rows as lines of JSON, each with its newline."""
        return (orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in self)

    def blocks(self, size: int) -> Iterator[bytes]:
        """Yield the lines of the rows in the files, where some fields are JSON text, in blocks of a size."""
        count = 0
        for extent in self._extents:
            number = 0
            for block in read_blocks(extent, size):
                lines = block.count(b"\n")
                for _ in range(lines):
                    self._on_row()
                kept = block if self._keep is None else self._kept(extent, number, block)
                number += lines
                if kept:
                    count += lines if kept is block else kept.count(b"\n")
                    yield kept
        self.count = count

    def _kept(self, extent: Extent, before: int, block: bytes) -> bytes:
        lines = enumerate(block.splitlines(keepends=True), before + 1)
        keep = cast("Callable[[dict[str, Any]], bool]", self._keep)
        return b"".join(line for number, line in lines if keep(parse_line(extent, number, line)))


class Exporter(Protocol):
    """A file format for rows; its class takes no arguments, or is a dataclass whose fields are options."""

    suffix: str
    """The end of the files' names, such as `.csv`."""

    def write(self, rows: CommittedRows, target: Path) -> Sequence[str]:
        """Write all rows to a file, and return the paths of values that were written as JSON text.

        Raises:
            RunDirError: if a row is damaged.
            OSError: if the file cannot be written.
        """
        ...


def find_exporter(name: str, options: Mapping[str, Any] | None = None) -> Exporter:
    """Return the exporter with a name, or at an import path, with these options.

    Raises:
        ConfigError: if there is none, the object is not an exporter, or it has no such options.
    """
    found: Any = EXPORTERS.find(name)
    if not isinstance(found, type) or not hasattr(found, "suffix") or not hasattr(found, "write"):
        raise ConfigError(f"sink.format={name} is no exporter: it must be a class with `suffix` and `write`")
    make = cast("Callable[[], Exporter]", found)
    if not options:
        return make()
    known = [field.name for field in fields(found)] if is_dataclass(found) else []
    for option in options:
        if option not in known:
            has = did_you_mean(option, known, all_of=known) or " It has no options."
            raise ConfigError(f"the format {name} has no option {option}.{has}")
    try:
        return msgspec.convert(dict(options), cast("type[Exporter]", found), strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"an option of the format {name} is wrong: {error}") from error


def exporter_for(path: Path, options: Mapping[str, Any] | None = None) -> Exporter:
    """Return the exporter of files with this suffix, the longest that fits.

    Raises:
        ConfigError: if there is none, or it has no such options.
    """
    known = {find_exporter(name).suffix: name for name in EXPORTERS.names()}
    for suffix in sorted(known, key=len, reverse=True):
        if path.name.endswith(suffix):
            return find_exporter(known[suffix], options)
    plain = [suffix for suffix in known if suffix.count(".") == 1]
    raise ConfigError(
        f"{path}: rows are written as {' or '.join(plain)}: end the file's name so, or name the format"
    )
