"""Read input that goes on: lines from a pipe, or the files of a folder to which further ones are added."""

import os
from dataclasses import dataclass
from typing import Annotated

from peerloom.options import FREE, Positive
from peerloom.source.format import SourceFormat
from peerloom.source.formats.auto import Auto
from peerloom.source.stream.streams import FolderStream, PipeStream, Stream, is_pipe


@dataclass(frozen=True, kw_only=True)
class StreamInput(SourceFormat):
    """A pipe, standard input (`-`), or a growing folder or pattern."""

    idle: Annotated[Positive | None, FREE] = None
    """The seconds without a new file after which a growing folder ends; by default never."""

    def claims(self, path: str) -> bool:
        """Return whether the path is standard input or a pipe."""
        return is_pipe(path)

    def stream(self, path: str, field: str | None) -> Stream:
        """Return the stream at a path."""
        if is_pipe(path):
            return PipeStream(path)
        return FolderStream(os.path.expanduser(path), Auto(), self.idle, field)


FORMAT = StreamInput
