"""Define the interface of source formats, and find them by name, entry point, or import path."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from peerloom.errors import ConfigError, SourceError
from peerloom.lookup.plugins import Plugins
from peerloom.options import Options
from peerloom.source.parts.part import CountedPart
from peerloom.source.parts.rows import RowsPart
from peerloom.source.storage.files import SourceFile, expand, identity

if TYPE_CHECKING:
    from peerloom.source.parts.json_lines import JsonlPart

FORMATS = Plugins("source.format", "peerloom.sources", "peerloom.source.formats", "FORMAT")


class Opening:
    """The opening of one source.

    Attributes:
        field: the dotted path of the field that becomes the row; None for the whole row.
        licenses: the licenses that the inputs state.
    """

    def __init__(self, field: str | None) -> None:
        self.field = field
        self.licenses: list[str] = []
        self._seen: set[str] = set()

    def new(self, files: Sequence[SourceFile]) -> list[SourceFile]:
        """Return the files that were not opened before."""
        found: list[SourceFile] = []
        for file in files:
            if identity(file) not in self._seen:
                self._seen.add(identity(file))
                found.append(file)
        return found


@dataclass(frozen=True, kw_only=True)
class SourceFormat(Options):
    """A kind of input. The fields of a subclass are keys under `source`.

    A subclass defines `rows`, or `parts` for input that should not be held in memory.
    """

    section: ClassVar[str] = "source"
    needs_path: ClassVar[bool] = True
    """Whether `source.path` must be set; a format that does not need it is opened with an empty path."""
    suffixes: ClassVar[tuple[str, ...]] = ()
    """The ends of the names of files that are read in this format if none is given."""

    def claims(self, path: str) -> bool:
        """Return whether a path that is not a file is read in this format if none is given."""
        return False

    def parts(self, path: str, opening: Opening) -> "Iterable[JsonlPart | CountedPart]":
        """Return the parts of the input at a path.

        Raises:
            SourceError: if it does not exist or is not in this format.
        """
        return [self._in_memory(path, path or type(self).__name__)]

    def rows(self, path: str) -> Iterable[Mapping[str, Any]]:
        """Return the rows of the input at a path, always the same in the same order."""
        raise NotImplementedError(f"{type(self).__name__} has neither rows nor parts")

    def _in_memory(self, path: str, name: str) -> RowsPart:
        try:
            return RowsPart(list(self.rows(path)), name)
        except OSError as error:
            raise SourceError(f"{name} cannot be read: {error}") from error


class FileFormat(SourceFormat):
    """A format of files, which may be named by paths, URLs and patterns."""

    def parts(self, path: str, opening: Opening) -> "Iterable[JsonlPart | CountedPart]":
        """Return the parts of the files that were not opened before."""
        if os.path.isdir(os.path.expanduser(path)):
            example = os.path.join(os.path.expanduser(path), f"*{self.suffixes[0]}")
            raise SourceError(f"{path} is a directory: name its files, as in {example}")
        return self.file_parts(opening.new(expand(path)), path)

    def file_parts(self, files: Sequence[SourceFile], pattern: str) -> "Iterable[JsonlPart | CountedPart]":
        """Return the parts of files, which one path, URL or pattern names."""
        return [self._in_memory(file.path, file.name) for file in files]


def find_format(name: str) -> type[SourceFormat]:
    """Return the format with a name, or at an import path.

    Raises:
        ConfigError: if there is none, or the object is not a format.
    """
    try:
        found = FORMATS.find(name)
    except ConfigError as error:
        if "." not in name or ":" in name:
            raise
        raise ConfigError(f"{error} A file is named by source.path={name}") from error
    if not isinstance(found, type) or not issubclass(found, SourceFormat):
        raise ConfigError(f"source.format={name} is no source: it must be a subclass of SourceFormat")
    return found
