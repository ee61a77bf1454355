"""Detect the format of each input.

A data set on the Hub is detected by its URL, a run, a saved data set, or the clone of one by the content of
its folder, and a file by its suffix. Any other folder is read as documents, any other file as JSON Lines.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import groupby

from peerloom.source.format import FORMATS, FileFormat, Opening, SourceFormat
from peerloom.source.formats.documents import Documents
from peerloom.source.formats.jsonl import Jsonl
from peerloom.source.parts.json_lines import JsonlPart
from peerloom.source.parts.part import CountedPart
from peerloom.source.probing import refuse_unsupported
from peerloom.source.storage.files import SourceFile, expand


class Auto(SourceFormat):
    """Any of the built-in formats."""

    def parts(self, path: str, opening: Opening) -> Iterator[JsonlPart | CountedPart]:
        """Yield the parts of a path; adjacent documents are one part."""
        formats: list[SourceFormat] = [FORMATS.find(name)() for name in FORMATS.built_in()]
        claiming = next((each for each in formats if each.claims(path)), None)
        if claiming is None and os.path.isdir(os.path.expanduser(path)):
            claiming = Documents()
        if claiming is not None:
            yield from claiming.parts(path, opening)
            return
        yield from parts_of_files(opening.new(expand(path)), path)


def parts_of_files(files: Sequence[SourceFile], pattern: str) -> Iterator[JsonlPart | CountedPart]:
    """Yield the parts of files, which one pattern names, in the formats of their names."""
    formats = [FORMATS.find(name)() for name in FORMATS.built_in()]
    known = [each for each in formats if isinstance(each, FileFormat) and each.suffixes]

    def detected(file: SourceFile) -> FileFormat:
        refuse_unsupported(file)
        return next((each for each in known if file.suffix.endswith(each.suffixes)), Jsonl())

    for found, group in groupby(files, detected):
        yield from found.file_parts(list(group), pattern)


FORMAT = Auto
